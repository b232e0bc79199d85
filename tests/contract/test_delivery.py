"""What at-least-once delivery promises to those who send and those who handle."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from pbus.bus import BusSubscriber, WorkerBus, connect
from pbus.bus.local.delivery import Delivery, current_delivery
from pbus.errors import BusFullError, BusUnavailableError
from pbus.messages import BusDataMessage, BusJobRequestMessage, BusJobResponseMessage, BusMessage
from pbus.settings import DeliveryOptions
from pbus.topology.policy.policies import RestartSpec
from support.faults import MISHAPS
from support.listeners import Listener
from support.valkey import Valkey
from support.waiting import PATIENCE_S, happens

pytestmark = pytest.mark.redis

KEEPS_W = {"declared": frozenset({"w"})}


class Shipment(BusDataMessage):
    """A message with a number."""

    number: int
    load: str = ""


def shipment(number: int, target: str | None = "w") -> Shipment:
    """One to send."""
    return Shipment(source="a", target=target, number=number)


def numbers(messages: list[BusMessage]) -> list[int]:
    """The numbers of shipments, in order."""
    return [message.number for message in messages if isinstance(message, Shipment)]


@contextlib.asynccontextmanager
async def running(*buses: WorkerBus) -> AsyncIterator[None]:
    """Buses started, and stopped whatever happens."""
    async with contextlib.AsyncExitStack() as stack:
        for bus in buses:
            await stack.enter_async_context(bus)
        yield


async def until_report(bus: WorkerBus, name: str, **expected: int) -> None:
    """Wait until a queue holds as much."""
    seen: dict[str, int] = {}
    async with asyncio.timeout(PATIENCE_S):
        while seen != expected:
            assert bus.queues is not None
            report = next(one for one in await bus.queues.stats() if one.name == name)
            seen = {key: getattr(report, key) for key in expected}
            await asyncio.sleep(0.01)


class Stubborn(BusSubscriber):
    """Raises for as long as told; notes the attempts."""

    def __init__(self, name: str, failures: int) -> None:
        self.name = name
        self.attempts: list[tuple[int, bool]] = []
        self.failures = failures
        self.done = asyncio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        """Fail, or be done."""
        delivery = current_delivery()
        assert delivery is not None
        self.attempts.append((delivery.attempt, delivery.is_last_attempt))
        if len(self.attempts) <= self.failures:
            raise ValueError(f"no {len(self.attempts)}")
        self.done.set()


def test_messages_wait_for_worker(make_keeping_bus):
    """What is sent to a declared worker while it is away is handled when it is there."""

    async def main():
        here, there = (
            make_keeping_bus(queue_options=KEEPS_W),
            make_keeping_bus(queue_options=KEEPS_W),
        )
        async with running(there):
            await there.subscribe(Listener("w"))
        listener = Listener("w")
        async with running(here):
            for number in range(5):
                await here.send(shipment(number))
            later = make_keeping_bus(queue_options=KEEPS_W)
            async with running(later):
                await later.subscribe(listener)
                assert list(range(5)) == numbers(await listener.heard(5))
                await until_report(here, "w", backlog=0)

    asyncio.run(main())


def test_raising_handler_is_retried(make_keeping_bus):
    """A handler that raised gets the message again, later, with the attempt counted."""

    async def main():
        bus = make_keeping_bus()
        async with running(bus):
            stubborn = Stubborn("w", failures=2)
            await bus.subscribe(stubborn)
            began = asyncio.get_running_loop().time()
            await bus.send(shipment(1))
            await happens(stubborn.done)
            waited = asyncio.get_running_loop().time() - began

            assert [(1, False), (2, False), (3, False)] == stubborn.attempts
            assert waited >= 1.5  # 0.5 s, then 1 s
            await until_report(bus, "w", backlog=0, dead=0)

    asyncio.run(main())


def test_hopeless_message_is_dead_lettered(make_keeping_bus):
    """After the last attempt a message is a dead letter with its reason; requeued, its attempts count from 1."""

    async def main():
        bus = make_keeping_bus(queue_options={"max_attempts": 2})
        async with running(bus):
            stubborn = Stubborn("w", failures=2)
            await bus.subscribe(stubborn)
            await bus.send(shipment(1))
            await until_report(bus, "w", backlog=0, dead=1)
            assert [(1, False), (2, True)] == stubborn.attempts
            (dead,) = await bus.queues.dead_letters()
            assert ("w", 2, "ValueError: no 2") == (dead.queue, dead.attempt, dead.reason)

            assert 1 == await bus.queues.requeue_dead([dead.key])
            await happens(stubborn.done)
            assert (1, False) == stubborn.attempts[-1]

    asyncio.run(main())


def test_killer_is_dead_lettered_and_answered(make_keeping_bus):
    """A message over which processes end too often is dead-lettered; a job is answered so."""

    async def main():
        options = {"queue_options": {"max_crash_attempts": 2, **KEEPS_W}}
        here = make_keeping_bus(**options)
        answers = Listener("a")
        async with running(here):
            await here.subscribe(answers)
            request = BusJobRequestMessage(source="a", target="w", job_id="j", job_name="x")
            for number in range(3):
                there = make_keeping_bus(incarnation=f"incarnation{number}", **options)
                async with running(there):
                    started = asyncio.Event()
                    await there.subscribe(Listener("w", lambda _, s=started: hang(s)))
                    if number == 0:
                        await here.send(request)
                    await happens(started)
                    await here.queues.requeue_held_by([
                        f"incarnation{number}"
                    ])  # as if the process were dead
            there = make_keeping_bus(**options)
            async with running(there):
                await there.subscribe(Listener("w"))
                (answer,) = await answers.heard(1)

            assert isinstance(answer, BusJobResponseMessage)
            assert ("j", "dead-lettered") == (answer.job_id, answer.response["type"])
            await until_report(here, "w", backlog=0, dead=1)

    asyncio.run(main())


def test_held_message_is_settled_later(make_keeping_bus):
    """A handler may keep a message in hand and go on with others; finish() settles it."""

    async def main():
        bus = make_keeping_bus()
        held: list[Delivery] = []

        async def hold(message: BusMessage) -> None:
            delivery = current_delivery()
            if message.number == 0:
                delivery.defer_ack()
                held.append(delivery)

        listener = Listener("w", hold)
        async with running(bus):
            await bus.subscribe(listener)
            for number in range(3):
                await bus.send(shipment(number))
            await listener.heard(3)
            await until_report(bus, "w", backlog=1, in_flight=1)
            held[0].settle()
            await until_report(bus, "w", backlog=0, in_flight=0)

    asyncio.run(main())


def test_redelivery_is_handled_once(make_keeping_bus):
    """What was handled before its process lost it does not come again."""

    async def main():
        here, there = make_keeping_bus(incarnation="here"), make_keeping_bus(incarnation="there")
        release = asyncio.Event()
        listener = Listener("w", lambda _: release.wait())
        async with running(here, there):
            await there.subscribe(listener)
            await here.send(shipment(1))
            await until_report(here, "w", in_flight=1)
            await here.queues.requeue_held_by(["there"])
            release.set()
            await here.send(shipment(2))
            await listener.heard(2)
            await until_report(here, "w", backlog=0)

            assert 2 == numbers(listener.messages)[-1]
            assert 3 >= len(listener.messages)

    asyncio.run(main())


def test_broadcast_is_copied(make_keeping_bus):
    """A broadcast waits for every declared worker, be it there or not; replicas get one each."""

    async def main():
        names = ("w", "x.1", "x.2")
        options = {"queue_options": {"declared": frozenset({*names, "x"})}}
        here = make_keeping_bus(**options)
        async with running(here):
            async with make_keeping_bus(**options) as there:
                for name in names:
                    await there.subscribe(Listener(name))
            await here.send(shipment(1, None))
            async with make_keeping_bus(**options) as there:
                listeners = [Listener(name) for name in names]
                for listener in listeners:
                    await there.subscribe(listener)
                for listener in listeners:
                    assert [1] == numbers(await listener.heard(1))

    asyncio.run(main())


def test_replicas_share_one_queue(make_keeping_bus):
    """What is sent to a group is handled by one replica each; none waits for a busy one."""

    async def main():
        here, one, two = make_keeping_bus(), make_keeping_bus(), make_keeping_bus()
        begun = asyncio.Event()
        busy, idle = Listener("x.1", lambda _: hang(begun)), Listener("x.2")
        busy.prefetch = idle.prefetch = 1
        async with running(here, one, two):
            await one.subscribe(busy)
            await here.send(request(0))
            await happens(begun)
            await two.subscribe(idle)
            for number in range(1, 20):
                await here.send(request(number))
            heard = await idle.heard(19)
            assert [str(number) for number in range(1, 20)] == [one.job_id for one in heard]

    def request(number: int) -> BusJobRequestMessage:
        return BusJobRequestMessage(source="a", target="x", job_id=str(number), job_name="j")

    asyncio.run(main())


async def hang(begun: asyncio.Event) -> None:
    """A handler that never ends."""
    begun.set()
    await asyncio.Event().wait()


def test_sender_waits_for_room(make_keeping_bus):
    """A queue with its backlog makes senders wait; room lets them go on, in order."""

    async def main():
        options = {"queue_options": {"max_backlog": 10}}
        here, there = make_keeping_bus(**options), make_keeping_bus(**options)
        release = asyncio.Event()
        listener = Listener("w", lambda _: release.wait())
        async with running(here, there):
            await there.subscribe(listener)
            sending = asyncio.create_task(send_all(here))
            await until_report(here, "w", backlog=10)
            await asyncio.wait([sending], timeout=0.3)
            assert not sending.done()
            release.set()
            await sending
            assert list(range(40)) == numbers(await listener.heard(40))

    async def send_all(bus: WorkerBus) -> None:
        for number in range(40):
            await bus.send(shipment(number))

    asyncio.run(main())


@pytest.mark.parametrize("refuses", [True, False])
def test_full_queue_refuses(make_keeping_bus, refuses):
    """Told to refuse at once, or once the send timeout is over, send() raises."""

    async def main():
        limit_s = 10 * PATIENCE_S if refuses else 0.5
        when_full = "refuse" if refuses else "wait"
        options = {
            "queue_options": {"max_backlog": 1, "when_full": when_full},
            "send_timeout": limit_s,
        }
        here, there = make_keeping_bus(**options), make_keeping_bus(**options)
        async with running(here, there):
            await there.subscribe(Listener("w", lambda _: asyncio.Event().wait()))
            await here.send(shipment(0))
            began = asyncio.get_running_loop().time()
            with pytest.raises(BusFullError):
                await asyncio.wait_for(here.send(shipment(1)), PATIENCE_S)
            waited = asyncio.get_running_loop().time() - began
            assert refuses or waited >= limit_s

    asyncio.run(main())


def test_queue_full_of_bytes_refuses(make_keeping_bus):
    """What does not fit by its size is refused with who holds how much of what at most."""

    async def main():
        options = {"queue_options": {"max_backlog_bytes": 2_000, "when_full": "refuse"}}
        here, there = make_keeping_bus(**options), make_keeping_bus(**options)
        async with running(here, there):
            await there.subscribe(Listener("w", lambda _: asyncio.Event().wait()))
            await here.send(Shipment(source="a", target="w", number=0, load="x" * 1_500))
            with pytest.raises(BusFullError, match=r"'w' holds [0-9,]+ bytes of at most 2,000"):
                await here.send(Shipment(source="a", target="w", number=1, load="x" * 1_500))

    asyncio.run(main())


def test_full_queue_holds_no_other_up(make_keeping_bus):
    """Senders to others go on while one queue has no room."""

    async def main():
        options = {"queue_options": {"max_backlog": 1}, "send_timeout": 10 * PATIENCE_S}
        here, there = make_keeping_bus(**options), make_keeping_bus(**options)
        free = Listener("free")
        async with running(here, there):
            await there.subscribe(Listener("w", lambda _: asyncio.Event().wait()))
            await there.subscribe(free)
            await here.send(shipment(0))
            stuck = asyncio.create_task(here.send(shipment(1)))
            for number in range(50):
                await here.send(shipment(number, "free"))
            assert 50 == len(await free.heard(50))
            assert not stuck.done()
            stuck.cancel()

    asyncio.run(main())


def test_outage_loses_nothing(channel):
    """While the broker is away send() waits; when it is back all is stored and handled, in order."""

    async def main(server: Valkey):
        here, there = (keeping(server, channel, send_timeout=10 * PATIENCE_S) for _ in range(2))
        listener = Listener("w")
        async with running(here, there):
            await there.subscribe(listener)
            for number in range(100):
                await here.send(shipment(number))
            server.kill()
            sends = [asyncio.create_task(here.send(shipment(n))) for n in range(100, 200)]
            done, _ = await asyncio.wait(sends, timeout=0.5)
            assert set() == done
            server.start()
            await asyncio.gather(*sends)
            await listener.heard(200)

            assert list(range(200)) == sorted(set(numbers(listener.messages)))

    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        asyncio.run(main(server))


def test_long_outage_is_an_error(channel):
    """A send that finds no broker for the whole send timeout says so."""

    async def main(server: Valkey):
        bus = keeping(server, channel, send_timeout=0.5)
        async with running(bus):
            await bus.subscribe(Listener("w"))
            server.kill()
            with pytest.raises(BusUnavailableError):
                await bus.send(shipment(1))

    with Valkey() as server:
        asyncio.run(main(server))


def keeping(server: Valkey, channel: str, **options: float) -> WorkerBus:
    """A bus on a server that can be killed."""
    delivery_options = DeliveryOptions(declared=frozenset({"w"}))
    return connect(
        server.url,
        channel=channel,
        delivery="at-least-once",
        delivery_options=delivery_options,
        **options,
    )


def test_any_error_is_survived(make_keeping_bus, caplog):
    """Any error of a handler leads to retries and a dead letter; other messages are not affected."""
    caplog.set_level(logging.CRITICAL + 1, "pbus")  # a test runner cannot pass half characters on
    mishaps = list(MISHAPS.values())

    class Unlucky(Listener):
        async def on_bus_message(self, message):
            if message.number < len(mishaps):
                raise mishaps[message.number]
            await super().on_bus_message(message)

    async def main():
        bus = make_keeping_bus(queue_options={"max_attempts": 2})
        async with running(bus):
            unlucky = Unlucky("w")
            await bus.subscribe(unlucky)
            for number in range(len(mishaps) + 4):
                await bus.send(shipment(number))
            expected = [len(mishaps) + number for number in range(4)]
            assert expected == numbers(await unlucky.heard(4))
            await until_report(bus, "w", backlog=0, in_flight=0, dead=len(mishaps))
            reasons = sorted(
                dead.reason.split(":")[0] for dead in await bus.queues.dead_letters("w")
            )
            assert sorted(type(one).__name__ for one in mishaps) == reasons

    asyncio.run(main())


def test_hundreds_join_at_once(make_keeping_bus):
    """Mailboxes of a process with very many subscribers are there in time, and stay."""

    async def main():
        here, there = make_keeping_bus(), make_keeping_bus()
        many = 40 if here.url.startswith("postgresql") else 700  # each makes two tables there
        listeners = [Listener(f"w{number}") for number in range(many)]
        async with running(here, there):
            await asyncio.gather(*(there.subscribe(listener) for listener in listeners))
            await here.send(shipment(1, target=None))
            for listener in listeners:
                assert [1] == numbers(await listener.heard(1))

    asyncio.run(main())


def test_unknown_broadcast_types_dead_letter_nothing(make_keeping_bus):
    """A broadcast of a type that a process does not know is not its business, nor a dead letter."""

    async def main():
        bus = make_keeping_bus()
        async with running(bus):
            listener = Listener("w")
            await bus.subscribe(listener)
            for target in (None, "w"):
                await bus.send_raw("UnknownNote", target, {"x": 1}, source="a")
            await bus.send(shipment(1))
            assert [1] == numbers(await listener.heard(1))
            await until_report(bus, "w", backlog=0, dead=1)  # what was meant for it alone
            assert (1, 1) == (bus.counters.foreign, bus.counters.refused)

    asyncio.run(main())


def test_poison_is_dead_lettered_before_its_worker_fails():
    """A message that kills its handlers is dead-lettered before the supervisor marks the worker failed."""
    ends = 1 + DeliveryOptions().max_crash_attempts  # the first only makes it suspect

    assert ends < RestartSpec().max_exits
