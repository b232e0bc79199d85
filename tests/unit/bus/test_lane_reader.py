"""Handlers in the lane's own task: its successor, its context, its end, and deliveries."""

import asyncio
import contextlib
import contextvars

from pbus.bus.local.delivery import StoredDelivery, UnstoredDelivery
from pbus.bus.local.lane_hold import InlineLaneHold, holds_lane, release_lane
from pbus.bus.local.mailbox import Mailbox
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusDataMessage, Lane
from support.waiting import finishes, happens, run, until


def release():
    """As at the beginning of a wait that does not end."""
    release_lane().__enter__()


MARK = contextvars.ContextVar("mark", default="none")


class LaneNote(BusDataMessage):
    """One message."""

    number: int


class Handling(BusSubscriber):
    """Hands numbers to a function, each in a lane's turn."""

    name = "handling"

    def __init__(self, handle):
        self.handle = handle
        self.turns = set()
        self.done = []

    async def on_bus_message(self, message):
        rest = InlineLaneHold(self.turns).start(self.handle(message.number))
        if rest is not None:
            await rest
        self.done.append(message.number)


class Counted(UnstoredDelivery):
    """A delivery that counts."""

    def __init__(self):
        self.count = 0

    def done(self):
        self.count += 1


class Kept(StoredDelivery):
    """A stored message's delivery that writes down how it was settled."""

    def __init__(self):
        self.ends = []

    def settle(self, error=None):
        self.ends.append("acked" if error is None else type(error).__name__)

    async def mark_started(self):
        pass

    def dead_letter(self, reason):
        self.ends.append("dead-lettered")

    def requeue(self):
        self.ends.append("requeued")


@contextlib.asynccontextmanager
async def delivering(handle, *deliveries):
    """A subscriber that is given a message for each delivery, numbered from 0."""
    handling = Handling(handle)
    mailbox = Mailbox(handling, lambda line, lane: None)
    for number, delivery in enumerate(deliveries):
        message = LaneNote(source="test", target="handling", number=number)
        mailbox.lane(Lane.DATA).put_nowait((message, delivery))
    mailbox.start()
    try:
        yield handling, mailbox
    finally:
        await mailbox.stop()


def test_start_that_is_not_noted_is_given_back():
    """A stored message whose start is still being noted when its mailbox stops goes to others."""

    class Suspect(Kept):
        def __init__(self):
            super().__init__()
            self.begins = asyncio.Event()

        async def mark_started(self):
            self.begins.set()
            await asyncio.Event().wait()

    async def main():
        delivery = Suspect()
        async with delivering(None, delivery) as (handling, _):
            await happens(delivery.begins)
        assert (["requeued"], []) == (delivery.ends, handling.done)

    run(main())


def test_released_lane_gets_successor():
    """A handler that releases its lane goes on; the next message is handled in another task."""

    async def main():
        gate, tasks = asyncio.Event(), {}

        async def handle(number):
            tasks[number] = asyncio.current_task()
            if number == 0:
                release()
                release()  # once is enough
                await gate.wait()

        async with delivering(handle, None, None, None) as (handling, _):
            await until(lambda: handling.done == [1, 2])
            assert tasks[1] is tasks[2] is not tasks[0]
            gate.set()
            await until(lambda: handling.done == [1, 2, 0])
            await finishes(tasks[0])  # it reads no more

    run(main())


def test_task_of_handler_releases():
    """A task that the handler started releases the handler's lane."""

    async def main():
        gate = asyncio.Event()

        async def ask():
            assert holds_lane()
            release()
            await gate.wait()

        async def handle(number):
            if number == 0:
                await asyncio.create_task(ask())

        async with delivering(handle, None, None) as (handling, _):
            await until(lambda: handling.done == [1])
            gate.set()
            await until(lambda: handling.done == [1, 0])

    run(main())


def test_late_lending_does_nothing():
    """A task that outlives its handler does not let a later message overtake."""

    async def main():
        over, gate, tasks = asyncio.Event(), asyncio.Event(), []

        async def release_later():
            await over.wait()
            release()
            gate.set()

        async def handle(number):
            if number == 0:
                tasks.append(asyncio.create_task(release_later()))
            elif number == 1:
                over.set()
                await gate.wait()
                await asyncio.sleep(0)

        async with delivering(handle, None, None, None) as (handling, _):
            await until(lambda: len(handling.done) == 3)
            assert [0, 1, 2] == handling.done

    run(main())


def test_waiting_handler_ends_its_task():
    """Handlers that do not wait share a task; one that waited is the last of its task."""

    async def main():
        tasks = []

        async def handle(number):
            tasks.append(asyncio.current_task())
            if number == 1:
                await asyncio.sleep(0)

        async with delivering(handle, None, None, None) as (handling, _):
            await until(lambda: handling.done == [0, 1, 2])
            assert tasks[0] is tasks[1] is not tasks[2]
            await finishes(tasks[1])

    run(main())


def test_cancelled_handler_is_alone():
    """Cancelling a handler's task ends that handler; the lane goes on."""

    async def main():
        begun, tasks = asyncio.Event(), []

        async def handle(number):
            tasks.append(asyncio.current_task())
            if number == 0:
                begun.set()
                await asyncio.Event().wait()

        async with delivering(handle, None, None) as (handling, mailbox):
            await happens(begun)
            tasks[0].cancel()
            await until(lambda: handling.done == [1])
            await until(tasks[0].done)
            assert 1 == mailbox.failed

    run(main())


def test_swallowed_cancel_ends_task():
    """A handler that ignores its cancellation is done, and the lane goes on in a new task."""

    async def main():
        begun, tasks = asyncio.Event(), []

        async def handle(number):
            tasks.append(asyncio.current_task())
            if number == 0:
                begun.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

        async with delivering(handle, None, None) as (handling, mailbox):
            await happens(begun)
            tasks[0].cancel()
            await until(lambda: handling.done == [0, 1])
            assert (0, False) == (mailbox.failed, tasks[0] is tasks[1])

    run(main())


def test_timeouts_work_in_handlers():
    """A timeout within a handler ends what it bounds, and nothing else."""

    async def main():
        late = []

        async def handle(number):
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                late.append(number)

        async with delivering(handle, None, None) as (handling, mailbox):
            await until(lambda: handling.done == [0, 1])
            assert ([0, 1], 0) == (late, mailbox.failed)

    run(main())


def test_context_is_each_message_own():
    """What a handler sets in a context variable stays with it, before and after it waits."""

    async def main():
        seen = []

        async def handle(number):
            seen.append(MARK.get())
            MARK.set(f"mark {number}")
            if number == 1:
                await asyncio.sleep(0)
            seen.append(MARK.get())

        async with delivering(handle, None, None, None) as (handling, _):
            await until(lambda: handling.done == [0, 1, 2])
        assert ["none", "mark 0", "none", "mark 1", "none", "mark 2"] == seen

    run(main())


def test_context_of_subscribing_is_kept():
    """A successor, too, begins with the context in which the mailbox was started."""

    async def main():
        seen = []

        async def handle(number):
            seen.append(MARK.get())
            MARK.set("handler")
            await asyncio.sleep(0)

        MARK.set("start")
        async with delivering(handle, None, None) as (handling, _):
            await until(lambda: handling.done == [0, 1])
        assert ["start", "start"] == seen

    run(main())


def test_released_message_counts_as_done():
    """Its sender may send on while the handler waits; the delivery is told once."""

    async def main():
        gate, deliveries = asyncio.Event(), (Counted(), Counted())

        async def handle(number):
            if number == 0:
                release()
                await gate.wait()

        async with delivering(handle, *deliveries) as (handling, _):
            await until(lambda: handling.done == [1])
            assert 1 == deliveries[0].count
            gate.set()
            await until(lambda: handling.done == [1, 0])
        assert [1, 1] == [delivery.count for delivery in deliveries]

    run(main())


def test_stored_messages_are_settled_once():
    """A stored message is acknowledged when its handler ends, released or not, with its error."""

    async def main():
        gate, deliveries = asyncio.Event(), (Kept(), Kept(), Kept())

        async def handle(number):
            if number != 1:
                release()
                await gate.wait()
            if number == 2:
                raise ValueError("no")

        async with delivering(handle, *deliveries) as (handling, _):
            await until(lambda: handling.done == [1])
            await until(lambda: len(handling.turns) == 2)
            assert [[], ["acked"], []] == [one.ends for one in deliveries]
            gate.set()
            await until(lambda: not handling.turns)
            await until(lambda: deliveries[2].ends)
        assert [["acked"], ["acked"], ["ValueError"]] == [one.ends for one in deliveries]

    run(main())


def test_cut_off_messages_are_requeued():
    """What the worker cuts off at its end is given back once, and its lane still reads."""

    async def main():
        deliveries = (Kept(), Kept())

        async def handle(number):
            if number == 0:
                await asyncio.Event().wait()

        async with delivering(handle, *deliveries) as (handling, _):
            await until(lambda: handling.turns)
            (turn,) = handling.turns
            turn.cancel()
            await turn.cancel()  # twice is once
            await until(lambda: deliveries[1].ends)
        assert [["requeued"], ["acked"]] == [one.ends for one in deliveries]

    run(main())


def test_stopped_mailbox_gives_back():
    """What is in a handler's hands when delivery ends is given back, released or not."""

    async def main():
        deliveries = (Kept(), Kept(), Kept())

        async def handle(number):
            if number == 0:
                release()
            await asyncio.Event().wait()

        async with delivering(handle, *deliveries) as (handling, _):
            await until(lambda: len(handling.turns) == 2)
        assert [["requeued"]] * 3 == [one.ends for one in deliveries]

    run(main())


def test_lane_ends_with_program():
    """A bus that was not stopped does not keep the program from ending."""
    handling = Handling(None)

    async def forget_to_stop():
        Mailbox(handling, lambda line, lane: None).start()
        await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(forget_to_stop(), 5))
