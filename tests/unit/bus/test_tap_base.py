"""What every tap on a broker does, without one: gaps, repeats, refusals and a slow reader."""

import pytest

from pbus.bus.tap_base import BrokerTap
from pbus.codec import FORMAT_VERSION, Envelope, encode_message, encode_payload
from pbus.messages import BusDataMessage
from support.waiting import run


class TappedNote(BusDataMessage):
    """One message."""

    number: int


class BareFollower(BrokerTap):
    """Has no broker."""

    async def _heartbeat(self) -> None:
        pass

    async def _disconnect(self) -> None:
        pass


def payload(first: int, count: int) -> bytes:
    """Messages of one stream from a number on."""
    lines = [encode_message(TappedNote(source="s", number=first + n)) for n in range(count)]
    return encode_payload(Envelope(FORMAT_VERSION, "s", 1, "d", "w", first, count, 0), lines)


def follow(*payloads: bytes) -> BareFollower:
    """A follower of these payloads."""
    follower = BareFollower()
    for each in payloads:
        follower._follow(each)
    return follower


async def seen(follower: BareFollower) -> list[tuple[int, int]]:
    """What waits to be read: how many had been missed then, and the bytes that are no header."""
    reader = aiter(follower)
    items = [await anext(reader) for _ in range(follower._queue.qsize())]
    await reader.aclose()
    return [(item.missed, int(item.body.rpartition(b":")[2].rstrip(b"}"))) for item in items]


class TappedBlob(BusDataMessage):
    """One large message."""

    text: str


def test_slow_reader_is_bounded_in_bytes():
    """Large messages wait up to a bound in bytes, not in their number; the rest is missed."""

    async def main():
        line = encode_message(TappedBlob(source="s", text="x" * 1_000_000))
        follower = BareFollower()
        for number in range(1, 101):
            envelope = Envelope(FORMAT_VERSION, "s", 1, "d", "w", number, 1, 0)
            follower._follow(encode_payload(envelope, [line]))
        waiting = follower._queue.qsize()
        reader = aiter(follower)
        sizes = [(await anext(reader)).size for _ in range(waiting)]
        follower._follow(
            encode_payload(Envelope(FORMAT_VERSION, "s", 1, "d", "w", 101, 1, 0), [line])
        )
        assert 1_000_000 < (await anext(reader)).size
        await reader.aclose()

        assert 100 - waiting == follower.missed
        assert sum(sizes) < 40_000_000

    run(main())


def test_gaps_count_as_missed():
    """Numbers that never came are counted, and each message says how many were up to then."""

    async def main():
        follower = follow(payload(1, 2), payload(5, 1))

        assert [(0, 1), (0, 2), (2, 5)] == await seen(follower)
        assert 2 == follower.missed

    run(main())


def test_first_sight_misses_nothing():
    """What a stream carried before the follower came is no gap."""

    async def main():
        follower = follow(payload(100, 1))

        assert [(0, 100)] == await seen(follower)

    run(main())


def test_repeats_show_once():
    """A payload sent twice, or again with more behind it, shows what is new only."""

    async def main():
        follower = follow(payload(1, 2), payload(1, 2), payload(1, 3))

        assert [(0, 1), (0, 2), (0, 3)] == await seen(follower)
        assert 0 == follower.missed

    run(main())


def test_slow_reader_misses_some(monkeypatch: pytest.MonkeyPatch):
    """What finds no room in the queue is missed, and counted."""
    monkeypatch.setattr("pbus.bus.tap_base._CAPACITY", 2)

    async def main():
        follower = follow(payload(1, 5))

        assert [(0, 1), (0, 2)] == await seen(follower)
        assert 3 == follower.missed

    run(main())


def test_noise_is_refused():
    """What is no payload, or no message in one, is counted and not shown."""

    async def main():
        torn = encode_payload(Envelope(FORMAT_VERSION, "s", 1, "d", "w", 1, 1, 0), [b"{"])
        follower = follow(b"noise", torn)

        assert [] == await seen(follower)
        assert 2 == follower.refused

    run(main())


def test_silent_streams_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    """A follower that runs for months keeps nothing of senders that left long ago."""
    follower = follow(payload(1, 2))
    follower._tidy()
    assert 1 == len(follower._next)

    monkeypatch.setattr("pbus.bus.tap_base._FORGET_S", -1.0)
    follower._tidy()
    assert {} == follower._next
