"""Words that left the code base do not come back."""

from pathlib import Path

import pytest

from lint.words import in_cache, left_words, words_in


def test_left_words_stay_away():
    """No file has a word that another stands for; lint.words says which, and where it is right."""
    assert [] == left_words()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("the dead letters of a worker", []),
        ("for letter in letters:", ["letter", "letters"]),
        ("class MailRoom(Outbox):", ["mail room", "outbox"]),
        ("def bury_nobody():", ["bury", "nobody"]),
        ("a lifetime of lifecycles", []),
        ("WorkerActor.lives", ["actor", "lives"]),
    ],
)
def test_words_are_found_in_names(line, expected):
    """Also within CamelCase and snake_case; a part of a longer word is none."""
    assert expected == list(words_in("x.py", line))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pbus/wire/fields.py", False),
        (".hidden.yaml", False),
        (".grimp_cache/pbus.data.json", True),
        ("pbus/.mypy_cache/3.11/builtins.data.json", True),
        ("pbus/__pycache__/fields.py", True),
    ],
)
def test_caches_are_not_read(path, expected):
    """Tools may put their caches below any folder they run in."""
    assert expected is in_cache(Path(path))
