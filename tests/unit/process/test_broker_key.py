"""The key of a project's own broker, where something else lies in its place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pbus.errors import ProcessError
from pbus.process.project.broker_key import own_key
from pbus.seal import parse_keys

GOOD = "another-key-of-sixteen-bytes"


def wrote(data: bytes) -> Callable[[Path], object]:
    """Makes a file with data."""
    return lambda path: path.write_bytes(data)


def linked(path: Path) -> None:
    """A link to a good key."""
    target = path.with_name("elsewhere")
    target.write_text(GOOD)
    path.symlink_to(target)


def linked_hard(path: Path) -> None:
    """A second name of a good key."""
    target = path.with_name("elsewhere")
    target.write_text(GOOD)
    path.hardlink_to(target)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (wrote(b"x"), "16 characters or more: one has 1"),
        (wrote(f"{GOOD},".encode()), "16 characters or more: one has 0"),
        (wrote(f"{GOOD}\n{GOOD}".encode()), "other characters"),
        (wrote(bytes(range(128, 192))), "other characters"),
        (wrote("schlüssel-von-mehr-als-sechzehn".encode()), "other characters"),
        (wrote(b"x" * 5000), "5,000 characters are too many"),
        (wrote(b"x" * 100_000), "characters are too many"),
        (Path.mkdir, "not a file|[Dd]irectory"),
        (linked, "link"),
        (linked_hard, "not a file of this folder"),
        (lambda path: path.symlink_to("/nowhere"), "link"),
        (os.mkfifo, "not a file of this folder"),
    ],
    ids=[
        "short", "half", "lines", "bytes", "umlaut", "long", "longer", "folder", "link", "hard link", "dangling",
        "pipe",
    ],
)  # fmt: skip
def test_what_is_no_key_is_named(tmp_path: Path, make: Callable[[Path], object], problem: str):
    """The error says which file it is and what to do, at once, and never what is in it."""
    make(tmp_path / "key")

    with pytest.raises(ProcessError, match=problem) as caught:
        own_key(tmp_path)

    assert str(tmp_path / "key") in str(caught.value)
    assert "remove it" in str(caught.value)
    assert GOOD not in str(caught.value)


@pytest.mark.parametrize("there", [None, b"", b"\n"])
def test_missing_key_is_made(tmp_path: Path, there: bytes | None):
    """Where there is none, or a file that nothing was written to yet; it stays the same, for its user alone."""
    path = tmp_path / "key"
    if there is not None:
        path.write_bytes(there)

    key = own_key(tmp_path)

    assert (key,) == parse_keys(key)
    assert key == own_key(tmp_path)
    assert 0o600 == path.stat().st_mode & 0o777
