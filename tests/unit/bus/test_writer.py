"""Writing a lane over a wire, without a broker: what is tried again, given up and counted."""

import asyncio
import contextlib
import functools

import pytest

from pbus.bus.coalescing import NEWS
from pbus.bus.local.counters import Counters
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import OutBatch, SendStream
from pbus.bus.stream.writer import LaneWriter
from pbus.codec import decode_payload
from pbus.concurrency.backoff import Backoff
from pbus.messages import Lane
from support.waiting import happens, run


class ScriptedWire:
    """Answers each write as told: how many processes got each payload, or an error; then 1."""

    broker = "broker"
    transient_errors = (OSError,)
    supports_nowait = False

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.written: list[tuple[str, bytes]] = []

    async def write(self, buffer, payloads):
        self.written += [(each.stream.address, buffer.encode(each)) for each in payloads]
        answer = self.answers.pop(0) if self.answers else 1
        if isinstance(answer, OSError):
            raise answer
        return [answer] * len(payloads)

    def is_tap_copy(self, address: str) -> bool:
        return address == "copy"

    def backoff(self) -> Backoff:
        return Backoff(0.0, 0.0)


def publisher_on(wire: ScriptedWire, give_up_s: float = 60.0) -> LaneWriter:
    """A publisher of the data lane."""
    buffer = SendBuffer(Lane.DATA, "me", has_flow=True, send_timeout=5.0)
    return LaneWriter(buffer, wire, Counters(), give_up_s)


async def write(publisher: LaneWriter, address: str = "a") -> int:
    """Have two messages written, or given up; returns how many count as undelivered."""
    for line in (b"1", b"2"):
        await publisher.send_buffer.put(address, line)
    task = asyncio.create_task(publisher.run())
    await happens(publisher.send_buffer.queue.emptied)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return publisher._counters.undelivered


def test_delivered_is_written_once():
    """A payload that a receiver got is done with."""

    async def main():
        wire = ScriptedWire(3)

        assert 0 == await write(publisher_on(wire))
        assert ["a"] == [address for address, _ in wire.written]

    run(main())


def test_no_receiver_means_undelivered():
    """Messages that reached no process are counted, and not tried again."""

    async def main():
        wire = ScriptedWire(0)

        assert 2 == await write(publisher_on(wire))
        assert 1 == len(wire.written)

    run(main())


@pytest.mark.parametrize("address", ["copy", NEWS])
def test_copies_and_news_may_be_undelivered(address):
    """An undelivered copy is no loss, nor are news that none wants; neither is retried."""

    async def main():
        wire = ScriptedWire(0)
        publisher = publisher_on(wire)
        publisher.expect_returns()

        assert 0 == await write(publisher, address)
        assert 1 == len(wire.written)

    run(main())


def test_outage_repeats_the_write(monkeypatch: pytest.MonkeyPatch):
    """What the broker did not confirm is written again, byte for byte, and waits for receivers."""
    monkeypatch.setattr("pbus.bus.stream.writer._GRACE_S", 1000.0)

    async def main():
        wire = ScriptedWire(OSError("away"), OSError("away"), 0, 1)

        assert 0 == await write(publisher_on(wire))
        assert 4 == len(wire.written)
        assert 1 == len(set(wire.written))

    run(main())


def test_long_outage_gives_up(caplog: pytest.LogCaptureFixture):
    """What the broker did not take in time counts as undelivered, and the log says so."""

    async def main():
        wire = ScriptedWire(*(OSError("away") for _ in range(1000)))

        assert 2 == await write(publisher_on(wire, give_up_s=0.0))

    run(main())

    assert "2 messages to 'a' were given up: the broker was away, or refused them" in caplog.text


class PostingWire(ScriptedWire):
    """Writes without waiting while it is idle; the test says when and how that ends."""

    supports_nowait = True
    is_idle = True

    def __init__(self, *answers: int | OSError) -> None:
        super().__init__(*answers)
        self.posted, self.collected = [], []

    def write_nowait(self, buffer, payloads, on_end):
        if self.is_idle:
            self.posted.append([each.lines[:] for each in payloads])
            self._end = functools.partial(on_end, payloads)
        return self.is_idle

    def end(self, *counts: int) -> None:
        """Have what was posted end with these counts; without, they are to be collected."""
        self._end(list(counts) or None)

    async def result_of_nowait(self, buffer, payloads):
        self.collected.append([each.lines for each in payloads])
        return await super().write(buffer, payloads)


def publishing(wire):
    """A publisher that waits for something to do."""
    return running(publisher_on(wire))


@contextlib.asynccontextmanager
async def running(publisher):
    """A publisher at work."""
    task = asyncio.create_task(publisher.run())
    await asyncio.sleep(0)
    try:
        yield publisher.send_buffer
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_idle_wire_is_written_at_once():
    """The first message goes before put() returns, those behind it together."""

    async def main():
        wire = PostingWire()
        async with publishing(wire) as buffer:
            for line in (b"1", b"2", b"3"):
                await buffer.put("a", line)
            assert [[[b"1"]]] == wire.posted
            await asyncio.sleep(0)
            assert [] == wire.written  # one after the other
            wire.end(1)
            await happens(buffer.queue.emptied)
            assert ([], 1) == (wire.collected, len(wire.written))  # the other two, in one payload
            await asyncio.sleep(0)
            await buffer.put("a", b"4")  # where they come in numbers none goes ahead
            await happens(buffer.queue.emptied)
            assert [[[b"1"]]] == wire.posted

    run(main())


def test_delivered_post_wakes_none():
    """What was posted and delivered is done with when that is known: the next may go."""

    async def main():
        wire = PostingWire()
        async with publishing(wire) as buffer:
            for line in (b"1", b"2"):
                await buffer.put("a", line)
                assert not buffer.queue.emptied.is_set()
                wire.end(1)
                assert buffer.queue.emptied.is_set()
            assert ([[[b"1"]], [[b"2"]]], []) == (wire.posted, wire.written)

    run(main())


def test_unsure_post_is_collected():
    """Who got it is found out by the publisher's task where that takes a question, or trouble."""

    async def main():
        wire = PostingWire(OSError("gone"))
        async with publishing(wire) as buffer:
            await buffer.put("a", b"1")
            wire.end()
            await happens(buffer.queue.emptied)
            assert [[[b"1"]]] == wire.collected
            assert 2 == len(wire.written)  # collected in vain, then written

    run(main())


def test_order_survives_a_lost_post():
    """What came while the lost one was under way is written after it."""

    async def main():
        wire = PostingWire(OSError("gone"))
        async with publishing(wire) as buffer:
            await buffer.put("a", b"1")
            await buffer.put("a", b"2")
            wire.end()
            await happens(buffer.queue.emptied)
            lines = [decode_payload(body)[1] for _, body in wire.written]
            assert [[b"1"], [b"1"], [b"2"]] == lines

    run(main())


def test_undelivered_is_retried(monkeypatch: pytest.MonkeyPatch):
    """What was posted soon after a reconnection, and reached no process, is written again."""
    monkeypatch.setattr("pbus.bus.stream.writer._GRACE_S", 1000.0)

    async def main():
        wire = PostingWire()
        publisher = publisher_on(wire)
        publisher.expect_returns()
        async with running(publisher) as buffer:
            await buffer.put("a", b"1")
            wire.end(0)
            await happens(buffer.queue.emptied)
            assert 1 == len(wire.written)
            assert 0 == publisher._counters.undelivered

    run(main())


def test_what_was_not_posted_is_written():
    """A wire that has something under way gets it the usual way."""

    async def main():
        wire = PostingWire()
        wire.is_idle = False
        async with publishing(wire) as buffer:
            await buffer.put("a", b"1")
            await happens(buffer.queue.emptied)
            assert (1, []) == (len(wire.written), wire.posted)

    run(main())


def test_nothing_follows_its_successor():
    """What reached no process is not sent again behind what its receiver has: it would be a repeat."""

    async def main():
        wire = ScriptedWire()
        publisher = publisher_on(wire)
        publisher.expect_returns()
        stream = SendStream("a", 1)
        first, second, other = OutBatch(stream), OutBatch(stream), OutBatch(SendStream("b", 2))
        for each in (first, second, other):
            each.lines.append(b"{}")

        assert [other] == publisher._settle([first, second, other], [0, 1, 0])
        assert 1 == publisher._counters.undelivered

    run(main())


def test_undelivered_is_said_once_a_second(caplog: pytest.LogCaptureFixture):
    """Undelivered messages are logged, at most once a second; visitors just leave."""
    caplog.set_level("INFO", "pbus")

    async def main():
        wire = ScriptedWire(0, 0, 0, 0)
        publisher = publisher_on(wire)
        for address in ("cli-1234", "nobody", "nobody", "other"):
            await write(publisher, address)

        assert 8 == publisher._counters.undelivered
        assert {"nobody": 4, "other": 2} == publisher._counters.unreached
        publisher._say_due = 0.0  # a second later
        publisher.say_undelivered()
        publisher.say_undelivered()

    run(main())

    assert [
        "2 messages to 'nobody' reached no process (2 to it so far)",
        "2 messages to 'nobody' reached no process (4 to it so far)",
        "2 messages to 'other' reached no process (2 to it so far)",
    ] == caplog.messages
