"""What every tap on a broker does, without one: gaps, repeats, refusals and a slow reader."""

import msgspec
import pytest

from pbus.bus.tap_base import BrokerTap
from pbus.codec import FORMAT_VERSION, Envelope, encode_message, encode_payload
from pbus.messages import BusDataMessage, BusTraceMessage
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

    async def catch_up(self) -> None:
        pass

    async def pause(self) -> None:
        pass

    async def resume(self) -> None:
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


def traced(**fields):
    """The items that a follower sees of a copy of a message that stayed in its process."""
    copy = BusTraceMessage(source="a", **fields)
    line = encode_message(copy)
    follower = follow(
        encode_payload(Envelope(FORMAT_VERSION, "s", 1, "s", "~traces", 1, 1, 0), [line])
    )
    return copy, follower._queue.get_nowait()


@pytest.mark.parametrize(
    ("urgent", "to", "lane"), [(False, "b", "d"), (True, None, "s"), (False, None, "d")]
)
def test_a_copy_is_shown_as_the_message_it_is_of(urgent, to, lane):
    """Its type, receiver, lane and fields; it is marked."""
    copy, item = traced(kind="BusNote", to=to, fields={"text": "x", "n": [1, None]}, urgent=urgent)

    assert ("BusNote", "a", to, copy.id, copy.time) == (
        item.header.type, item.header.source, item.header.target, item.header.id, item.header.time,
    )  # fmt: skip
    assert {"text": "x", "n": [1, None]} == {
        key: value for key, value in msgspec.json.decode(item.body).items() if key in {"text", "n"}
    }
    assert (lane, True) == (item.lane, item.is_local)


def test_a_copy_that_is_none_is_shown_as_it_came():
    """Anybody may publish."""
    line = b'{"type":"BusTraceMessage","source":"a","target":"~traces","kind":5}'
    follower = follow(
        encode_payload(Envelope(FORMAT_VERSION, "s", 1, "s", "~traces", 1, 1, 0), [line])
    )
    item = follower._queue.get_nowait()
    assert ("BusTraceMessage", False) == (item.header.type, item.is_local)


def test_other_messages_are_not_marked():
    """They left their process."""
    follower = follow(payload(1, 1))
    assert not follower._queue.get_nowait().is_local


def test_quota_is_used_up_in_order():
    """So many messages are shown, those of half a payload too; the others are counted apart."""
    follower = BareFollower()
    follower.quota = 5
    for each in (payload(1, 3), payload(4, 4), payload(20, 2), payload(20, 2)):  # and one repeat
        follower._follow(each)
    assert [1, 2, 3, 4, 5] == [number for _, number in run(seen(follower))]
    assert (0, 4, 12) == (follower.quota, follower.skipped, follower.missed)
    follower.quota = 1
    follower._follow(payload(22, 1))
    assert [(12, 22)] == run(seen(follower))
    follower.quota = None
    follower._follow(payload(23, 50))
    assert 50 == len(run(seen(follower)))
    assert 4 == follower.skipped


def test_sieve_comes_before_the_quota():
    """It is given fresh messages only, undecoded; what it keeps costs nothing of the quota."""
    given: list[bytes] = []

    def keep_odd(lines: list[bytes]) -> list[bytes]:
        given.extend(lines)
        return [line for line in lines if int(line[-2:-1]) % 2]

    follower = BareFollower()
    follower.sieve, follower.quota = keep_odd, 3
    for each in (payload(1, 4), payload(3, 4), payload(7, 3)):
        follower._follow(each)

    assert [1, 3, 5] == [number for _, number in run(seen(follower))]
    assert (9, 0, 2) == (len(given), follower.quota, follower.skipped)


def test_waiting_messages_are_given_once():
    """What came before the end is there after it, and nothing else."""
    follower = follow(payload(1, 3))
    assert 3 == len(list(follower.waiting()))
    follower._follow(payload(4, 2))
    follower._queue.end()
    assert 2 == len(list(follower.waiting()))
    assert [] == list(follower.waiting())
