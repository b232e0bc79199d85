"""Texts and names within so many cells."""

import pytest
from rich.cells import cell_len

from pbus_cli.views.cells import cut, cut_name, fill


@pytest.mark.parametrize("room", range(12))
@pytest.mark.parametrize("text", ["indexer.10", "工作者.2", "x" * 40, "工" * 20])
def test_never_wider_than_the_room(text: str, room: int):
    """Whatever the characters, nothing takes more cells than there are; filled, just as many."""
    assert cell_len(cut(text, room)) <= room
    assert cell_len(cut_name(text, room)) <= room
    assert cell_len(fill(cut_name(text, room), room)) == room


def test_replicas_stay_apart():
    """Of a long name its end is kept, where the number of a replica is."""
    names = [cut_name(f"transcriber-of-the-second-floor.{number}", 12) for number in (1, 2, 12)]

    assert names == ["transcr…or.1", "transcr…or.2", "transcr…r.12"]


def test_what_fits_is_whole():
    """Nothing is cut that need not be."""
    assert cut("indexer", 7) == "indexer"
    assert cut_name("indexer.1", 9) == "indexer.1"
