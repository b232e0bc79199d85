"""Words that left the code base do not come back."""

from lint.words import LEFT, PENDING, left_words


def test_left_words_stay_away():
    """No file has a word that another stands for."""
    assert [] == left_words(frozenset(LEFT) - PENDING)
