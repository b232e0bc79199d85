"""Writing a lane over a wire, without a broker: what is tried again, given up and counted."""

import asyncio
import contextlib

import pytest

from pbus.bus.backoff import Backoff
from pbus.bus.outbox import Outbox
from pbus.bus.publisher import Publisher
from pbus.bus.switchboard import Counters
from pbus.messages import Lane
from support.waiting import happens, run


class ScriptedWire:
    """Answers each write as told: how many processes got each payload, or an error; then 1."""

    broker = "broker"
    trouble = (OSError,)
    posts = False

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.written: list[tuple[str, bytes]] = []

    async def write(self, outbox, payloads):
        self.written += [(each.stream.address, outbox.encode(each)) for each in payloads]
        answer = self.answers.pop(0) if self.answers else 1
        if isinstance(answer, OSError):
            raise answer
        return [answer] * len(payloads)

    def is_copy(self, address: str) -> bool:
        return address == "copy"

    def backoff(self) -> Backoff:
        return Backoff(0.0, 0.0)


def publisher_on(wire: ScriptedWire, give_up_s: float = 60.0) -> Publisher:
    """A publisher of the data lane."""
    outbox = Outbox(Lane.DATA, "me", has_flow=True, send_timeout=5.0)
    return Publisher(outbox, wire, Counters(), give_up_s)


async def write(publisher: Publisher, address: str = "a") -> int:
    """Have two messages written, or given up; returns how many count as undelivered."""
    for line in (b"1", b"2"):
        await publisher.outbox.put(address, line)
    task = asyncio.create_task(publisher.run())
    await happens(publisher.outbox.emptied)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return publisher._counters.undelivered


def test_delivered_is_written_once():
    """A payload that somebody got is done with."""

    async def main():
        wire = ScriptedWire(3)

        assert 0 == await write(publisher_on(wire))
        assert ["a"] == [address for address, _ in wire.written]

    run(main())


def test_nobody_means_undelivered():
    """Messages that reached no process are counted, and not tried again."""

    async def main():
        wire = ScriptedWire(0)

        assert 2 == await write(publisher_on(wire))
        assert 1 == len(wire.written)

    run(main())


def test_copies_may_reach_nobody():
    """A copy that nobody got is no loss, nor tried again while receivers are on their way back."""

    async def main():
        wire = ScriptedWire(0)
        publisher = publisher_on(wire)
        publisher.expect_returns()

        assert 0 == await write(publisher, "copy")
        assert 1 == len(wire.written)

    run(main())


def test_outage_repeats_the_write(monkeypatch: pytest.MonkeyPatch):
    """What the broker did not confirm is written again, byte for byte, and waits for receivers."""
    monkeypatch.setattr("pbus.bus.publisher._GRACE_S", 1000.0)

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

    assert "2 messages to 'a' were given up: the broker was away" in caplog.text


class PostingWire(ScriptedWire):
    """Writes without waiting while it is idle."""

    posts = True
    is_idle = True

    def post(self, outbox, payloads):
        if self.is_idle:
            self.posted.append([each.lines[:] for each in payloads])
        return self.is_idle

    async def collect(self, outbox, payloads):
        await self.may_collect.wait()
        self.collected.append([each.lines for each in payloads])
        return await super().write(outbox, payloads)

    def __init__(self, *answers: int | OSError) -> None:
        super().__init__(*answers)
        self.posted, self.collected, self.may_collect = [], [], asyncio.Event()


@contextlib.asynccontextmanager
async def publishing(wire):
    """A publisher that waits for something to do."""
    publisher = publisher_on(wire)
    task = asyncio.create_task(publisher.run())
    await asyncio.sleep(0)
    try:
        yield publisher.outbox
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_idle_wire_is_written_at_once():
    """The first message goes before put() returns, those behind it together."""

    async def main():
        wire = PostingWire()
        async with publishing(wire) as outbox:
            for line in (b"1", b"2", b"3"):
                await outbox.put("a", line)
            assert [[[b"1"]]] == wire.posted
            wire.may_collect.set()
            await happens(outbox.emptied)
            assert [[[b"1"]]] == wire.collected
            assert 2 == len(wire.written)  # one of them with the other two
            await asyncio.sleep(0)
            await outbox.put("a", b"4")  # where they come in numbers none goes ahead
            await happens(outbox.emptied)
            assert [[[b"1"]]] == wire.posted

    run(main())


@pytest.mark.parametrize("is_idle", [True, False])
def test_what_was_not_posted_is_written(is_idle):
    """A busy wire, and one that broke after the post, gets it the usual way."""

    async def main():
        wire = PostingWire(*([OSError("gone")] if is_idle else []))
        wire.is_idle = is_idle
        wire.may_collect.set()
        async with publishing(wire) as outbox:
            await outbox.put("a", b"1")
            await happens(outbox.emptied)
            assert (1 + is_idle, len(wire.posted)) == (len(wire.written), int(is_idle))

    run(main())
