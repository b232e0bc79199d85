"""Words that left the code base do not come back."""

from lint.words import CLEAN, LEFT, PENDING, left_words


def test_left_words_stay_away():
    """No file has a word that another stands for."""
    assert [] == left_words(frozenset(LEFT) - PENDING)


def test_clean_trees_stay_clean():
    """Trees that have none of these words any more get none."""
    assert [] == [place for place in left_words() if place.startswith(CLEAN)]
