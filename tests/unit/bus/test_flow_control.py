"""Notes about credit, without a broker: grants go out, probes are answered, the gone forgotten."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence

import pytest

from pbus.bus.claims import Presence
from pbus.bus.stream.flow_control import CREDIT_NOTES, FlowControl
from pbus.bus.stream.receiver import StreamReceiver
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import INITIAL_CREDIT_BYTES
from pbus.concurrency.backoff import Backoff
from pbus.errors import MessageDecodeError
from pbus.messages import Lane
from support.waiting import finishes, happens, run, until

FULL = b"x" * (INITIAL_CREDIT_BYTES - 1)  # as much as a sender may send before it is granted more


class NoteWire:
    """Takes control frames while it is open; there are no listeners."""

    broker = "broker"
    transient_errors = (OSError,)
    supports_nowait = False

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.failures = 0
        self.told: list[tuple[str, bytes]] = []
        self.asked: list[tuple[str, bytes]] = []

    async def send_control(self, notes):
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise OSError("away")
        self.told += notes

    async def probe(self, buffer, notes, addresses):
        self.asked += notes
        return [0] * len(notes), [0] * len(addresses)

    def backoff(self) -> Backoff:
        return Backoff(0.0, 0.0)


class Setup:
    """One process's credit with what it stands on."""

    def __init__(self, wire: NoteWire | None = None, presences: Sequence[Presence] = ()) -> None:
        self.wire = wire or NoteWire()
        self.buffer = SendBuffer(Lane.DATA, "me", has_flow=True, send_timeout=20.0)
        self.credit = FlowControl(
            "me", self.buffer, self.wire, StreamReceiver(None), presences=presences
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it grants and probes."""
        tasks = [
            asyncio.create_task(self.credit.run_grants()),
            asyncio.create_task(self.credit.run_probes()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def test_newer_grants_replace_older():
    """While one write is under way only the newest grant per sender and address is kept."""

    async def main():
        setup = Setup()
        setup.wire.open.clear()
        async with setup.running():
            for consumed in range(5):
                setup.credit.grant("s", "a", 1, consumed, 100)
            setup.credit.grant("s", "b", 2, 0, 100)
            setup.wire.open.set()
            await until(lambda: len(setup.wire.told) == 2)

        expected = [["grant", "me", "a", 1, 4, 100], ["grant", "me", "b", 2, 0, 100]]
        assert expected == [json.loads(note) for _, note in setup.wire.told]
        assert {"s"} == {process for process, _ in setup.wire.told}

    run(main())


def test_grants_survive_an_outage():
    """What could not be told is told later, unless there is something newer to tell."""

    async def main():
        setup = Setup()
        setup.wire.failures = 3
        async with setup.running():
            setup.credit.grant("s", "a", 1, 7, 100)
            await until(lambda: setup.wire.told)

        assert [7] == [json.loads(note)[4] for _, note in setup.wire.told]

    run(main())


def test_unknown_stream_is_disowned():
    """A sender that asks about a stream unknown here is told not to wait for us."""

    async def main():
        setup = Setup()
        async with setup.running():
            setup.credit.receive(b'["probe","s","a",1,0,0]')
            await until(lambda: setup.wire.told)

        ((process, note),) = setup.wire.told
        assert ("s", ["grant", "me", "a", 1, 0, -1]) == (process, json.loads(note))
        assert note.startswith(CREDIT_NOTES)

    run(main())


def test_gone_receivers_are_forgotten():
    """A sender out of credit asks, and goes on when there is no receiver."""

    async def main():
        setup = Setup()
        await setup.buffer.put("a", FULL)
        setup.credit.receive(b'["grant","gone","a",1,0,%d]' % INITIAL_CREDIT_BYTES)
        setup.buffer.blocking.clear()
        sending = asyncio.create_task(setup.buffer.put("a", b"more"))
        await happens(setup.buffer.blocking)
        async with setup.running():
            await finishes(sending)

        ((process, note),) = setup.wire.asked
        assert ("gone", ["probe", "me", "a", 1, 0, 0]) == (process, json.loads(note))

    run(main())


class StubbornWire(NoteWire):
    """The broker goes on counting a process that is over."""

    async def probe(self, buffer, notes, addresses):
        self.asked += notes
        return [1] * len(notes), [2] * len(addresses)


class Registry:
    """Knows who is over, and who has a name."""

    def __init__(self, over: str, holder: str | None) -> None:
        self._over, self._holder = over, holder

    def is_over(self, process: str) -> bool:
        return process == self._over

    def holder(self, name: str) -> str | None:
        return self._holder


@pytest.mark.parametrize(("address", "holder"), [("a", "next"), ("*", None)])
def test_credit_ends_with_its_incarnation(address: str, holder: str | None):
    """Senders wait for the next incarnation only, though the broker still counts the one before."""

    async def main():
        setup = Setup(StubbornWire(), [Registry("gone", holder)])
        note = b'["grant","%s","%s",1,%d,%d]'
        await setup.buffer.put(address, FULL)
        (payload,) = await setup.buffer.queue.next_batches()
        setup.buffer.written(payload, 2)
        size = payload.size
        setup.credit.receive(note % (b"gone", address.encode(), 0, INITIAL_CREDIT_BYTES))
        setup.credit.receive(note % (b"next", address.encode(), size, size + 5))
        setup.buffer.blocking.clear()
        sending = asyncio.create_task(setup.buffer.put(address, b"more"))
        await happens(setup.buffer.blocking)
        async with setup.running():
            await finishes(sending)
            setup.buffer.blocking.clear()
            waiting = asyncio.create_task(setup.buffer.put(address, b"most"))
            await happens(setup.buffer.blocking)
            await until(lambda: len(setup.wire.asked) >= 3)
            assert not waiting.done()  # for want of the next incarnation's credit
            setup.credit.receive(note % (b"next", address.encode(), size + 5, size + 500))
            await finishes(waiting)

    run(main())


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"[]",
        b'["grant"',
        b'["grant","s","a","1",0,0]',
        b'["grant","\xff","a",1,2,3]',
        b'["grant","s","a",1,0,9000000000000000000000]',
        b'["grant","s","a",1,0,-2]',
        b'["probe","s","a",-1,0,0]',
        b'["grant",' + b"[" * 100_000,
    ],
)
def test_other_notes_are_refused(note: bytes):
    """A frame that is not about credit is an error, from any sender."""

    async def main():
        with pytest.raises(MessageDecodeError, match="no credit note"):
            Setup().credit.receive(note)

    run(main())


def test_invented_receivers_are_bounded():
    """Grants of ever new receivers cost a sender no memory, and its own receivers still count."""

    async def main():
        setup = Setup()
        await setup.buffer.put("a", b"x")
        setup.credit.receive(b'["grant","real","a",1,0,100]')
        for number in range(10_000):
            setup.credit.receive(b'["grant","r%d","a",1,0,1000000]' % number)
        (stream,) = setup.buffer._streams.values()

        assert len(stream.receivers()) < 5_000
        assert "real" in stream.receivers()

    run(main())
