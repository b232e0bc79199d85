"""What every bus promises, on every backend."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from pbus import WorkerRunner
from pbus.bus import WorkerBus
from pbus.errors import (
    BusClosedError,
    BusLoopError,
    DuplicateSubscriberError,
    MessageDefinitionError,
)
from pbus.frames import AudioRawFrame, TextFrame
from pbus.messages import (
    BusDataMessage,
    BusFrameMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
)
from support.listeners import Listener
from support.waiting import PATIENCE_S

KEEPING = {"redis-streams", "pgmq"}  # messages, until they are handled


@pytest.fixture
def make_bus(make_any_bus):
    """This suite runs on buses that keep messages, too."""
    return make_any_bus


@pytest.fixture
def backend(any_backend):
    """The backend under test."""
    return any_backend


class Numbered(BusDataMessage):
    """A data message with a number."""

    number: int


class Alert(BusSystemMessage):
    """A system message."""


class Murmur(BusDataMessage, BusLocalMessage):
    """A message that stays here."""


@contextlib.asynccontextmanager
async def running(*buses: WorkerBus) -> AsyncIterator[None]:
    """Buses started, and stopped whatever happens."""
    try:
        for bus in buses:
            await bus.start()
        yield
    finally:
        for bus in buses:
            await bus.stop()


def numbers(messages: list[BusMessage]) -> list[int]:
    """The numbers of the notes among messages, in order."""
    return [message.number for message in messages if isinstance(message, Numbered)]


def test_targeted_reaches_target_only(make_bus):
    """A targeted message is given to the subscriber of that name and no other."""

    async def main():
        here, there = make_bus(), make_bus()
        wanted, other = Listener("wanted"), Listener("other")
        async with running(here, there):
            await there.subscribe(wanted)
            await there.subscribe(other)
            await here.send(Numbered(source="a", target="wanted", number=1))
            await here.send(Numbered(source="a", target="other", number=2))

            assert [1] == numbers(await wanted.heard(1))
            assert [2] == numbers(await other.heard(1))

    asyncio.run(main())


def test_broadcast_reaches_everyone_once(make_bus):
    """A broadcast reaches every subscriber of every process once, the sender's own included."""

    async def main():
        here, there = make_bus(), make_bus()
        listeners = [Listener("a"), Listener("b"), Listener("c")]
        async with running(here, there):
            await here.subscribe(listeners[0])
            await there.subscribe(listeners[1])
            await there.subscribe(listeners[2])
            await here.send(Numbered(source="a", number=1))
            await here.send(Numbered(source="a", number=2))
            for listener in listeners:
                assert [1, 2] == numbers(await listener.heard(2))

    asyncio.run(main())


def test_one_sender_keeps_order(make_bus, backend):
    """What one sender sends one receiver arrives in order, broadcasts included."""
    total = 500 if backend in KEEPING else 3_000  # there each send is a round trip

    async def main():
        here, there = make_bus(), make_bus()
        listener = Listener("w")
        async with running(here, there):
            await there.subscribe(listener)
            for number in range(total):
                target = None if number % 7 == 0 else "w"
                await here.send(Numbered(source="a", target=target, number=number))

            assert list(range(total)) == numbers(await listener.heard(total))

    asyncio.run(main())


def test_concurrent_sends_keep_order(make_bus):
    """Sends started together arrive in the order they were started (W36)."""

    async def main():
        here, there = make_bus(), make_bus()
        listener = Listener("w")
        async with running(here, there):
            await there.subscribe(listener)
            await asyncio.gather(
                *(here.send(Numbered(source="a", target="w", number=n)) for n in range(1500))
            )

            assert list(range(1500)) == numbers(await listener.heard(1500))

    asyncio.run(main())


def test_waiting_messages_delivered_system_first(make_bus):
    """Messages that wait for start() are handled after it, the system lane first."""

    async def main():
        bus = make_bus()
        listener = Listener("w")
        await bus.subscribe(listener)
        for number in range(3):
            await bus.on_message_received(Numbered(source="a", target="w", number=number))
        await bus.on_message_received(Alert(source="a", target="w"))
        async with running(bus):
            heard = await listener.heard(4)

        assert [Alert, Numbered, Numbered, Numbered] == [type(message) for message in heard]

    asyncio.run(main())


def test_system_overtakes_busy_handler(make_bus):
    """A system message is handled beside a data handler in progress and before queued data."""

    async def main():
        here, there = make_bus(), make_bus()
        release = asyncio.Event()
        order: list[str] = []

        async def handle(message: BusMessage) -> None:
            if isinstance(message, Numbered):
                await release.wait()
            else:
                release.set()
            order.append(type(message).__name__)

        listener = Listener("w", handle)
        async with running(here, there):
            await there.subscribe(listener)
            for number in range(50):
                await here.send(Numbered(source="a", target="w", number=number))
            await here.send(Alert(source="a", target="w"))
            await listener.heard(51)

        assert "Alert" == order[0]

    asyncio.run(main())


def test_slow_subscriber_delays_none(make_bus):
    """One subscriber whose handler never returns does not keep another waiting."""

    async def main():
        here, there = make_bus(), make_bus()
        slow = Listener("slow", lambda _: asyncio.Event().wait())
        quick = Listener("quick")
        async with running(here, there):
            await there.subscribe(slow)
            await there.subscribe(quick)
            for number in range(100):
                await here.send(Numbered(source="a", number=number))

            assert 100 == len(await quick.heard(100))

    asyncio.run(main())


def test_raising_handler_is_passed_over(make_bus, caplog):
    """A handler that raises is logged and the next message is handled."""

    async def main():
        bus = make_bus()

        async def handle(message: BusMessage) -> None:
            if message.number == 0:
                raise ValueError("broken")

        listener = Listener("w", handle)
        async with running(bus):
            await bus.subscribe(listener)
            await bus.send(Numbered(source="a", target="w", number=0))
            await bus.send(Numbered(source="a", target="w", number=1))

            assert [1] == numbers(await listener.heard(1))

    asyncio.run(main())
    assert "the handler of Numbered" in caplog.text


def test_w29_raising_accepts_refuses_once(make_bus, caplog):
    """accepts_bus_message that raises loses that message only."""

    async def main():
        bus = make_bus()
        listener = Listener("w")
        answers = iter([RuntimeError("broken"), True, True])

        def accepts(_: BusMessage) -> bool:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        listener.accepts_bus_message = accepts
        async with running(bus):
            await bus.subscribe(listener)
            for number in range(3):
                await bus.send(Numbered(source="a", target="w", number=number))

            assert [1, 2] == numbers(await listener.heard(2))

    asyncio.run(main())
    assert "accepts_bus_message raised" in caplog.text


def test_w30_second_name_is_refused(make_bus):
    """A second subscriber of one name in a process is an error, not silence."""

    async def main():
        bus = make_bus()
        first = Listener("w")
        await bus.subscribe(first)
        await bus.subscribe(first)
        with pytest.raises(DuplicateSubscriberError):
            await bus.subscribe(Listener("w"))

    asyncio.run(main())


def test_unsubscribed_hears_nothing_more(make_bus):
    """After unsubscribe() nothing is delivered, and the name is free again."""

    async def main():
        here, there = make_bus(), make_bus()
        old, new = Listener("w"), Listener("w")
        async with running(here, there):
            await there.subscribe(old)
            await here.send(Numbered(source="a", target="w", number=1))
            await old.heard(1)
            await there.unsubscribe(old)
            await there.subscribe(new)
            await here.send(Numbered(source="a", target="w", number=2))

            assert [2] == numbers(await new.heard(1))
            assert [1] == numbers(old.messages)

    asyncio.run(main())


def test_local_message_stays_here(make_bus, backend):
    """A local message reaches subscribers of this process only."""

    async def main():
        here, there = make_bus(), make_bus()
        near, far = Listener("near"), Listener("far")
        async with running(here, there):
            await here.subscribe(near)
            await there.subscribe(far)
            await here.send(Murmur(source="a"))
            await here.send(Numbered(source="a", number=1))
            await near.heard(2)
            heard = await far.heard(2 if backend == "memory" else 1)

        expected = [Murmur, Numbered] if backend == "memory" else [Numbered]
        assert expected == [type(message) for message in heard]

    asyncio.run(main())


def test_stopped_bus_refuses_to_send(make_bus):
    """send() after stop() raises; stop() and start() may be called twice."""

    async def main():
        bus = make_bus()
        await bus.start()
        await bus.start()
        await bus.stop()
        await bus.stop()
        with pytest.raises(BusClosedError, match="the bus is stopped"):
            await bus.send(Numbered(source="a", number=1))

    asyncio.run(main())


def test_bus_without_start_refuses_to_send(make_bus):
    """send() and send_raw() before start() raise and count nothing: no process would ever receive it."""

    async def main():
        bus = make_bus()
        listener = Listener("w")
        await bus.subscribe(listener)
        for send in (
            lambda: bus.send(Numbered(source="a", target="w", number=1)),
            lambda: bus.send_raw("Numbered", "w", {"number": 2}, source="a"),
        ):
            with pytest.raises(BusClosedError, match=r"not started.*start"):
                await send()
        assert (0, []) == (bus.counters.sent, listener.messages)
        async with bus:
            await bus.send(Numbered(source="a", target="w", number=3))

            assert [3] == numbers(await listener.heard(1))

    asyncio.run(main())


def test_send_waits_for_start(make_bus):
    """What is sent while start() is under way goes out once it is done; a second start() joins it."""

    async def main():
        bus = make_bus()
        listener = Listener("w")
        await bus.subscribe(listener)
        async with asyncio.TaskGroup() as group:
            group.create_task(bus.start())
            await asyncio.sleep(0)  # it is under way
            group.create_task(bus.start())
            group.create_task(bus.send(Numbered(source="a", target="w", number=1)))
            group.create_task(bus.send_raw("Numbered", "w", {"number": 2}, source="a"))
        heard = await listener.heard(2)
        await bus.stop()

        assert [1, 2] == numbers(heard)

    asyncio.run(main())


@pytest.mark.parametrize("is_stopped", [True, False])
def test_bus_of_another_loop_is_told(make_bus, is_stopped):
    """A bus of an earlier asyncio.run() says what to do, whatever is asked of it."""
    bus = make_bus()

    async def first():
        await bus.start()
        if is_stopped:
            await bus.stop()

    async def second():
        for call in (
            bus.start,
            lambda: bus.send(Numbered(source="a", number=1)),
            lambda: bus.send_raw("Numbered", None, {"number": 1}, source="a"),
            lambda: bus.subscribe(Listener("w")),
            bus.stop,
            WorkerRunner(bus=bus, handle_sigint=False).run,
        ):
            with pytest.raises(BusLoopError, match=r"new bus .* within each asyncio.run\(\)"):
                await call()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(first())
    for task in asyncio.all_tasks(loop):  # as asyncio.run() does in the end
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    asyncio.run(second())
    loop.run_until_complete(bus.stop())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_frames_arrive_whole(make_bus):
    """Frames keep their type, bytes and metadata."""

    async def main():
        here, there = make_bus(), make_bus()
        listener = Listener("w")
        audio = AudioRawFrame(audio=bytes(range(256)) * 4, sample_rate=16000, metadata={"n": [1]})
        sent = [
            BusFrameMessage(source="a", target="w", frame=TextFrame(text="grüezi\n")),
            BusFrameMessage(source="a", target="w", frame=audio, bridge="voice"),
        ]
        async with running(here, there):
            await there.subscribe(listener)
            for message in sent:
                await here.send(message)

            assert sent == await listener.heard(2)

    asyncio.run(main())


def test_handler_may_use_the_bus(make_bus):
    """A handler may send, subscribe and unsubscribe."""

    async def main():
        here, there = make_bus(), make_bus()
        answers = Listener("answers")

        async def handle(message: BusMessage) -> None:
            extra = Listener("extra")
            await there.subscribe(extra)
            await there.send(Numbered(source="w", target=message.source, number=message.number + 1))
            await there.unsubscribe(extra)

        async with running(here, there):
            await here.subscribe(answers)
            await there.subscribe(Listener("w", handle))
            await here.send(Numbered(source="answers", target="w", number=1))

            assert [2] == numbers(await answers.heard(1))

    asyncio.run(main())


def test_tap_sees_everything(make_bus):
    """A follower sees targeted and broadcast messages of both lanes, with whole bodies."""

    async def main():
        bus = make_bus()
        async with running(bus), bus.tap() as tap:
            await bus.send(Numbered(source="a", target="nobody", number=7))
            await bus.send(Alert(source="a"))
            seen = {}
            async with asyncio.timeout(PATIENCE_S):
                async for item in tap:
                    seen[item.header.type] = item
                    if len(seen) == 2:
                        break

        assert "nobody" == seen["Numbered"].header.target
        assert b'"number":7' in seen["Numbered"].body
        assert ["d", "s", 0] == [seen["Numbered"].lane, seen["Alert"].lane, tap.missed]

    asyncio.run(main())


def test_w28_full_mailbox_makes_room(make_bus, backend):
    """A sender that finds no room waits for it in turn, and nothing is lost (W14, W28).

    Where messages are kept, a send is a round trip and the bound is the mailbox's own.
    """
    options = {"queue_options": {"max_backlog": 500}} if backend in KEEPING else {}

    async def main():
        here, there = make_bus(**options), make_bus(**options)
        release = asyncio.Event()
        listener = Listener("w", lambda _: release.wait())
        total = 1_000 if options else 30_000
        async with running(here, there):
            await there.subscribe(listener)
            sender = asyncio.create_task(send_all(here, total))
            await asyncio.wait([sender], timeout=1.5 if options else 0.2)
            assert not sender.done()
            release.set()
            await asyncio.wait_for(sender, 2 * PATIENCE_S)  # 30,000 messages, on a busy machine

            assert list(range(total)) == numbers(await listener.heard(total))

    async def send_all(bus: WorkerBus, total: int) -> None:
        for number in range(total):
            await bus.send(Numbered(source="a", target="w", number=number))

    asyncio.run(main())


class Picky(BusDataMessage):
    """Raises in __post_init__, but only where it is received."""

    number: int
    is_bad: ClassVar[bool] = False

    def __post_init__(self):
        if self.is_bad:
            raise KeyError(self.number)


class Unfinished(BusDataMessage):
    """Its annotation names what comes later, if at all."""

    amount: "Amount"  # noqa: F821 - that is the point


def test_class_that_raises_is_refused(make_bus, backend):
    """A message whose class raises where it is received ended the reader; now the next is handled."""
    if backend == "memory":
        pytest.skip("nothing is decoded within a process")

    async def main():
        here, there, listener = make_bus(), make_bus(), Listener("w")
        async with running(here, there):
            await there.subscribe(listener)
            with pytest.raises(MessageDefinitionError, match=r"Unfinished.amount names 'Amount'"):
                await here.send(Unfinished(source="a", target="w", amount=1))
            touchy = [Picky(source="a", target=target, number=1) for target in ("w", None)]
            Picky.is_bad = True
            for message in touchy:
                await here.send(message)
            await here.send(Numbered(source="a", target="w", number=2))
            await here.send(Numbered(source="a", target=None, number=3))
            assert [2, 3] == sorted(message.number for message in await listener.heard(2))
            assert 2 == there.counters.refused
            if there.queues is not None:
                async with asyncio.timeout(PATIENCE_S):
                    while len(messages := await there.queues.dead_letters("w")) < 2:
                        await asyncio.sleep(0.02)
                assert all("its class raised KeyError: 1" in dead.reason for dead in messages)

    Picky.is_bad = False
    asyncio.run(main())
