"""Messages of a lane that are handled one after another, without a coroutine of the bus for each."""

import asyncio
import contextlib

import pytest

from pbus.bus.local.delivery import UnstoredDelivery
from pbus.bus.local.lane_hold import InlineLaneHold, release_lane
from pbus.bus.local.mailbox import Mailbox
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusDataMessage, Lane
from pbus.stats.edge_table import EdgeTable
from support.waiting import happens, run, until


class RunNote(BusDataMessage):
    """One message."""

    number: int


class Counted(UnstoredDelivery):
    """A delivery that counts."""

    def __init__(self):
        self.count = 0

    def done(self):
        self.count += 1


class Plain(BusSubscriber):
    """Hands numbers to a function; its handler is no coroutine."""

    name = "plain"

    def __init__(self, handle=lambda _: None):
        self.handle = handle
        self.seen = []

    def on_bus_message(self, message):
        self.seen.append(message.number)
        return self.handle(message.number)


def note(number):
    return RunNote(source="test", target="plain", number=number)


@contextlib.asynccontextmanager
async def reading(subscriber, deliveries, lane=Lane.DATA, decode=lambda line, lane: None):
    """A mailbox that reads a message for each delivery, numbered from 0."""
    mailbox = Mailbox(subscriber, decode, edges=EdgeTable())
    for number, delivery in enumerate(deliveries):
        mailbox.lane(lane).put_nowait((note(number), delivery))
    mailbox.start()
    try:
        yield mailbox
    finally:
        await mailbox.stop()


def counts(mailbox):
    (edge,) = mailbox._edges.edges()
    return edge.handled, edge.errors, mailbox.failed


def test_handler_that_is_no_coroutine_is_counted():
    """A handler may return None when it has ended: it is counted, and the next message follows."""

    async def main():
        subscriber = Plain()
        async with reading(subscriber, [None, Counted(), None]) as mailbox:
            await until(lambda: len(subscriber.seen) == 3)
            assert ([0, 1, 2], 3, (3, 0, 0)) == (
                subscriber.seen,
                mailbox.received,
                counts(mailbox),
            )

    run(main())


@pytest.mark.parametrize("is_told", [False, True])
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError])
def test_what_a_handler_raises_is_its_own(error, is_late, is_told):
    """An error at the call or after a wait is counted as the handler's; the lane goes on."""

    async def raise_late():
        await asyncio.sleep(0)
        raise error("at last")

    def handle(number):
        if number != 1:
            return None
        if is_late:
            return raise_late()
        raise error("at once")

    async def main():
        subscriber = Plain(handle)
        deliveries = [Counted() if is_told else None for _ in range(3)]
        async with reading(subscriber, deliveries) as mailbox:
            await until(lambda: len(subscriber.seen) == 3)
            assert ([0, 1, 2], (3, 1, 1)) == (subscriber.seen, counts(mailbox))
            assert all(one is None or one.count == 1 for one in deliveries)

    run(main())


def test_delivery_is_told_of_its_own_message_only():
    """A handler that frees the lane tells nothing of the delivery of a message before it."""
    turns = set()

    async def wait():
        with release_lane():
            await asyncio.sleep(0)

    def handle(number):
        return InlineLaneHold(turns).start(wait()) if number else None

    async def main():
        first, last = Counted(), Counted()
        subscriber = Plain(handle)
        async with reading(subscriber, [first, None, None, last]):
            await until(lambda: last.count)
            assert (1, 1, [0, 1, 2, 3]) == (first.count, last.count, subscriber.seen)

    run(main())


def test_urgent_comes_between_two_messages():
    """An urgent message that arrives during a handler is handled before the next data message."""

    async def main():
        def handle(number):
            if number == 1:
                mailbox.lane(Lane.SYSTEM).put_nowait((note(99), None))

        subscriber = Plain(handle)
        async with reading(subscriber, [None] * 4) as mailbox:
            await until(lambda: len(subscriber.seen) == 5)
        assert [0, 1, 99, 2, 3] == subscriber.seen

    run(main())


def test_long_run_lets_others_in():
    """Handlers that never wait do not keep the loop from turning for longer than some of them."""

    async def main():
        turns = 0
        subscriber = Plain(lambda _: (sum(range(10_000)), None)[1])
        async with reading(subscriber, [None] * 200):
            while len(subscriber.seen) < 200:
                await asyncio.sleep(0)
                turns += 1
        assert turns > 3

    run(main())


def test_stopped_in_a_handler_reads_no_further():
    """A mailbox that a handler of its own stops gives the rest back."""

    async def main():
        rest = Counted()
        ended = asyncio.Event()

        async def stop():
            await mailbox.stop()
            ended.set()

        subscriber = Plain(lambda _: stop())
        async with reading(subscriber, [None, rest]) as mailbox:
            await happens(ended)
            await until(lambda: not mailbox._tasks)
        assert ([0], 1) == (subscriber.seen, rest.count)

    run(main())


def test_refused_messages_are_not_handled():
    """What a subscriber does not accept, or cannot decide about, is left out; the rest follows."""

    class Choosy(Plain):
        def accepts_bus_message(self, message):
            if message.number == 1:
                raise SystemExit(3)
            return message.number != 2

    async def main():
        subscriber = Choosy()
        async with reading(subscriber, [None] * 4) as mailbox:
            await until(lambda: 3 in subscriber.seen)
            assert ([0, 3], 2, 1) == (subscriber.seen, mailbox.received, mailbox.failed)

    run(main())


def test_what_cannot_be_decoded_is_skipped():
    """A line that is no message is dropped between two that are."""
    lines = {b"0": note(0), b"1": None, b"2": note(2)}

    async def main():
        subscriber = Plain()
        async with reading(subscriber, [], decode=lambda line, _: lines[line]) as mailbox:
            mailbox.lane(Lane.DATA).extend_nowait((line, None) for line in lines)
            await until(lambda: 2 in subscriber.seen)
            assert ([0, 2], 2) == (subscriber.seen, mailbox.received)

    run(main())
