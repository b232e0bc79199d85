"""Busy edges are folded to a rate, whatever they are; rare messages stay, and nothing grows for ever."""

import time

import msgspec
import pytest

from pbus.bus.tap import TapMessage
from pbus.codec import Header, decode_header, encode_message
from pbus.messages import BusDataMessage
from pbus_cli.live.traffic_fold import TrafficFold


class FoldedNote(BusDataMessage):
    """A message."""


class Clocked:
    """A fold, and seconds that pass as the test says."""

    def __init__(self) -> None:
        self.fold = TrafficFold()
        self.now = time.monotonic()
        self._count = 0

    def add(
        self,
        source: str,
        kind: str,
        count: int,
        target: str | None = "agent",
        *,
        is_reached: bool = True,
    ) -> None:
        """Messages pass."""
        for _ in range(count):
            self._count += 1
            header = Header(
                type=kind, source=source, target=target, id=str(self._count), time=0.0 + self._count
            )
            body = msgspec.json.encode({"type": kind, "n": self._count})
            self.fold.add(TapMessage(header=header, body=body, lane="d"), is_reached=is_reached)

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
    """The line of a burst stays for half a minute after it; one message in between is not lost."""
    clocked = Clocked()
    clocked.add("a", "T", 6)
    clocked.second()
    for _ in range(29):
        clocked.add("a", "T", 1)
        clocked.second()
    (folded,) = clocked.fold.folded()
    assert (35, 1.0) == (folded.count, pytest.approx(folded.rate))
    assert 35 == len(folded.latest)

    clocked.second()
    assert () == clocked.fold.folded()
    clocked.add("a", "T", 1)
    assert ["T"] == clocked.shown


def test_edge_does_not_flutter():
    """Around one rate it stays as it is: calm is counted again after each busy second."""
    clocked = Clocked()
    clocked.add("a", "T", 6)
    clocked.second()
    for _ in range(3):
        for count in (*[1] * 20, 3):
            clocked.add("a", "T", count)
            clocked.second()
            assert clocked.fold.folded()
    slow = Clocked()
    for _ in range(5):
        slow.add("a", "T", 4)
        slow.second()
        assert not slow.fold.folded()


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


def lines_of(kind: str, count: int, source: str = "mic") -> list[bytes]:
    """Messages as they travel."""
    text = f'{{"type":"{kind}","source":"{source}","target":"agent","id":"1","time":1.0,"x":1}}'
    return [text.encode()] * count


def flooded() -> Clocked:
    """An edge of which enough was seen this second."""
    clocked = Clocked()
    clocked.add("mic", "Frame", 50)
    clocked.second()
    for line in lines_of("Frame", 51):
        header = Header(type="Frame", source="mic", target="agent", id="1", time=1.0)
        clocked.fold.add(TapMessage(header=header, body=line, lane="d"))
    return clocked


def test_flood_is_counted_undecoded():
    """What is busy is counted as it travels, in numbers and bytes; all else is left to be looked into."""
    clocked = flooded()
    rare = [*lines_of("Level", 1), *lines_of("Frame", 1, source="stt")]
    left = clocked.fold.sieve([*lines_of("Frame", 900), *rare])
    clocked.second()
    (folded,) = clocked.fold.folded()

    assert rare == left
    assert (1_001, 1_001) == (folded.count, clocked.fold.passed)
    assert folded.rate == pytest.approx(951, rel=0.02)
    assert folded.bytes_rate == pytest.approx(951 * len(lines_of("Frame", 1)[0]), rel=0.02)


@pytest.mark.parametrize("target", ["agent", None, "stt.2", 'an "odd" \u00e9'])
def test_messages_of_the_library_are_sieved(target: str | None):
    """Encoded by pbus itself, with any target."""
    clocked = Clocked()
    lines = [encode_message(FoldedNote(source="mic", target=target)) for _ in range(200)]

    def pass_by() -> int:
        left = clocked.fold.sieve(lines)
        for line in left:
            item = TapMessage(header=decode_header(line), body=line, lane="d")
            clocked.fold.add(item)
        return len(left)

    assert 200 == pass_by()
    clocked.second()
    assert 200 == pass_by()
    assert 0 == pass_by()
    assert 600 == clocked.fold.passed


def test_some_of_a_flood_are_seen_each_second():
    """The newest messages of a busy edge can be inspected as long as it is busy."""
    clocked = flooded()
    assert [] == clocked.fold.sieve(lines_of("Frame", 9))
    clocked.second()

    assert 9 == len(clocked.fold.sieve(lines_of("Frame", 9)))


@pytest.mark.parametrize(
    "line", [b"", b"no json", b"\x82\xa4type\xa5Frame", b'{"type":"' + b"x" * 9_000, b'","id":"']
)
def test_sieve_leaves_what_is_odd(line: bytes):
    """Whatever is no message of a busy edge is left to who decodes it."""
    assert [line] == flooded().fold.sieve([line])


def test_message_with_an_odd_head_is_never_sieved():
    """A message whose head is not as pbus writes it counts, and is decoded each time."""
    clocked = flooded()
    header = Header(type="Frame", source="mic", target="agent", id="1", time=1.0)
    for body in (b"{}", b'{"source":"mic","type":"Frame"}', b"x" * 2_000):
        clocked.fold.add(TapMessage(header=header, body=body, lane="d"))

    assert [b"{}"] == clocked.fold.sieve([b"{}"])


def test_unseen_messages_count_in_the_rates():
    """Where only a tenth could be looked at, rates are those of all."""
    clocked = Clocked()
    clocked.add("mic", "Frame", 100)
    clocked.now += 1.0
    clocked.fold.look(clocked.now, 900)
    (folded,) = clocked.fold.folded()

    assert clocked.fold.per_second == pytest.approx(1_000, rel=0.02)
    assert folded.rate == pytest.approx(1_000, rel=0.02)


def test_unreached_messages_are_told():
    """Alone or folded; a folded edge is as its newest message."""
    clocked = Clocked()
    clocked.add("a", "Note", 1, is_reached=False)
    clocked.add("mic", "Frame", 40, is_reached=False)
    clocked.second()
    (alone,), (folded,) = clocked.fold.messages(), clocked.fold.folded()
    assert (False, False) == (alone.is_reached, folded.is_reached)

    clocked.add("mic", "Frame", 40)
    clocked.second()
    assert clocked.fold.folded()[0].is_reached
