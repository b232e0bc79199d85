"""Busy edges are folded to a rate, whatever they are; rare messages stay, and nothing grows for ever."""

import time

import msgspec
import pytest

from pbus.bus.tap import TapMessage
from pbus.codec import Header
from pbus_cli.live.traffic_fold import TrafficFold


class Clocked:
    """A fold, and seconds that pass as the test says."""

    def __init__(self) -> None:
        self.fold = TrafficFold()
        self.now = time.monotonic()
        self._count = 0

    def add(self, source: str, kind: str, count: int, target: str | None = "agent") -> None:
        """Messages pass."""
        for _ in range(count):
            self._count += 1
            header = Header(
                type=kind, source=source, target=target, id=str(self._count), time=0.0 + self._count
            )
            body = msgspec.json.encode({"type": kind, "n": self._count})
            self.fold.add(TapMessage(header=header, body=body, lane="d"))

    def second(self) -> None:
        """A second passes."""
        self.now += 1.0
        self.fold.look(self.now)

    @property
    def shown(self) -> list[str]:
        """The types of the messages that are not folded."""
        return [one.type for one in self.fold.messages()]


def test_busy_edge_leaves_the_rare_ones():
    """50 frames a second are one line; the transcript among them is seen, in whatever second it comes."""
    clocked = Clocked()
    for _ in range(3):
        clocked.add("mic", "Frame", 49)
        clocked.add("stt", "Transcript", 1)
        clocked.add("mic", "Frame", 1)
        clocked.second()
    (folded,) = clocked.fold.folded()

    assert ["Transcript"] * 3 == clocked.shown
    assert ("mic", "agent", "Frame") == (folded.source, folded.target, folded.type)
    assert folded.count == 150
    assert folded.rate == pytest.approx(50, rel=0.02)
    assert folded.bytes_rate > 500
    assert 50 == len(folded.latest)
    assert clocked.fold.passed == 153
    assert clocked.fold.per_second == pytest.approx(51, rel=0.02)


def test_replicas_are_one_edge():
    """What each of many replicas sends seldom is often together."""
    clocked = Clocked()
    for number in range(1, 9):
        clocked.add(f"stt.{number}", "Transcript", 1, f"agent.{number}")
    clocked.second()

    assert [] == clocked.shown
    assert [("stt", "agent")] == [(one.source, one.target) for one in clocked.fold.folded()]


def test_broadcasts_and_types_are_told_apart():
    """Only what is busy is folded, of the same source."""
    clocked = Clocked()
    clocked.add("mic", "Frame", 20, None)
    clocked.add("mic", "Frame", 1, "agent")
    clocked.add("mic", "Level", 1, None)
    clocked.second()

    assert ["Frame", "Level"] == clocked.shown
    assert [None] == [one.target for one in clocked.fold.folded()]


def test_edge_that_calms_down_is_shown_again():
    """It does not flutter around one rate: it is folded from five a second, until less than two."""
    clocked = Clocked()
    clocked.add("a", "T", 6)
    clocked.second()
    states = []
    for count in (3, 2, 1, 3, 4, 5):
        clocked.add("a", "T", count)
        clocked.second()
        states.append(bool(clocked.fold.folded()))

    assert [True, True, False, False, False, True] == states


def test_rate_holds_at_any_load():
    """Of a flood few are kept, and all are counted."""
    clocked = Clocked()
    clocked.add("a", "T", 100)
    clocked.second()
    clocked.add("a", "T", 20_000)
    clocked.second()
    (folded,) = clocked.fold.folded()

    assert folded.count == 20_100
    assert folded.rate == pytest.approx(20_000, rel=0.02)
    assert len(folded.latest) <= 50
    assert folded.latest[-1].time < 20_000  # the others were not even looked into


def test_bounded_whatever_comes():
    """Any number of names and types takes a bounded room; messages of too many are not folded."""
    clocked = Clocked()
    for number in range(5_000):
        clocked.add(f"w{number}", f"T{number}", 1)
    clocked.add("late", "Late", 30)
    clocked.second()

    assert 500 == len(clocked.shown)
    assert ["Late"] * 30 == clocked.shown[-30:]
    assert len(clocked.fold._edges) <= 2_000
    assert len(clocked.fold._by_name) <= 4_000


def test_look_too_soon_does_nothing():
    """No rate is taken over a moment."""
    clocked = Clocked()
    clocked.add("a", "T", 30)
    clocked.fold.look(clocked.now + 0.01)

    assert () == clocked.fold.folded()
    assert 0.0 == clocked.fold.per_second


def test_long_message_is_cut():
    """The beginning of one is kept; its size is told."""
    fold = TrafficFold()
    header = Header(type="T", source="a", target=None, id="1", time=1.0)
    fold.add(TapMessage(header=header, body=b"x" * 100_000, lane="s"))
    (one,) = fold.messages()

    assert (4096, 100_000, True) == (len(one.body), one.size, one.is_urgent)
