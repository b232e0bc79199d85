"""Whose project, whose process: by the path that it was started by, and by no other mark."""

from collections.abc import Iterator

import pytest

from support.command import Home, Place, living

pytestmark = pytest.mark.cli

PROGRAM = "workers:\n  {worker}: {{command: [sh, -c, 'echo {worker} runs; exec sleep 600']}}\n"


@pytest.fixture(scope="module")
def other_home() -> Iterator[Home]:
    """State and sockets of somebody else, as it seems."""
    with Home() as home:
        yield home


def test_state_homes_are_strangers(home: Home, other_home: Home):
    """Two state homes: what runs from one folder twice is two projects, and none ends the other."""
    first = home.place("shared", {"topology.yaml": PROGRAM.format(worker="uno")})
    second = Place(other_home, first.folder)
    first.up()
    ours = home.processes()

    second.up()
    assert ours == living(ours)
    theirs = other_home.processes()
    assert 0 == second.tell("down").code

    assert [] == living(theirs)
    assert ours == living(ours)
    assert ["uno"] == list(first.rows())
    assert 0 == first.tell("down").code
