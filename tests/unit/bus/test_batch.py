"""Batches without a broker: bounds, turns of the loop, outcomes, cancelling."""

import asyncio

import pytest

from pbus.bus.local.counters import Counters
from pbus.bus.queues import batch as batches
from pbus.bus.queues.batch import BatchingBus
from pbus.errors import BatchError, BusClosedError, BusFullError, MessageEncodeError
from support.job_helpers import Note
from support.waiting import run

SIZE = 100  # bytes of each message


class Shelf(BatchingBus):
    """Stores what has a target when the loop turns, and tells what it was asked to.

    Attributes:
        outcomes: By number: an exception; other messages are stored.
        most: The bytes that were not confirmed at most.
    """

    def __init__(self, outcomes=None, *, is_stuck=False):
        self.counters = Counters()
        self.is_running = True
        self.outcomes = outcomes or {}
        self.stored, self.sent, self.most, self.open = [], [], 0, []
        self._is_stuck = is_stuck

    def enqueue(self, message, receipt):
        if message.target is None:
            return False
        outcome = self.outcomes.get(message.number)
        if isinstance(outcome, MessageEncodeError):
            raise outcome
        receipt.size = SIZE
        self.open.append(receipt)
        self.most = max(self.most, SIZE * sum(not one.done() for one in self.open))
        if not self._is_stuck:
            asyncio.get_running_loop().call_soon(self._end, message, receipt, outcome)
        return True

    def _end(self, message, receipt, outcome):
        if outcome is not None and not isinstance(outcome, int):
            receipt.set_exception(outcome)
            return
        self.stored.append(message.number)
        receipt.set_result(1 if outcome is None else outcome)

    async def send(self, message):
        self.sent.append(message.number)
        if error := self.outcomes.get(message.number):
            raise error
        return True

    async def _until_running(self):
        raise BusClosedError("not started")


def notes(count, target="w"):
    return [Note(source="a", target=target, number=number) for number in range(count)]


def failures_of(shelf, messages):
    """The kinds of failures, by position."""
    with pytest.raises(BatchError) as caught:
        run(shelf.send_all(messages))
    return {position: type(error) for position, error in caught.value.failures.items()}


@pytest.mark.parametrize("count", [1, 7, 300])
def test_bytes_without_confirmation_are_bounded(monkeypatch, count):
    """However many messages a batch has; all are sent, in order."""
    monkeypatch.setattr(batches, "_MAX_BYTES", 10 * SIZE)
    shelf = Shelf()
    run(shelf.send_all(notes(count)))

    assert list(range(count)) == shelf.stored
    assert shelf.most <= 11 * SIZE
    assert count == shelf.counters.sent


def test_long_batch_lets_the_loop_turn(monkeypatch):
    """The first messages are stored while later ones are encoded."""
    monkeypatch.setattr(batches, "_YIELD_BYTES", 10 * SIZE)
    shelf = Shelf()
    run(shelf.send_all(notes(100)))

    assert list(range(100)) == shelf.stored
    assert shelf.most <= 25 * SIZE


def test_full_target_is_waited_for_once(monkeypatch):
    """Once a message found no room later ones to that target and lane are not even tried."""
    monkeypatch.setattr(batches, "_MAX_BYTES", 4 * SIZE)
    full = BusFullError("'w'", 1.0, "no room")
    shelf = Shelf({1: full})
    others = [Note(source="a", target="other", number=number) for number in (50, 51)]
    found = failures_of(shelf, [*notes(20), *others])

    assert 1 in found
    assert set(found.values()) == {BusFullError}
    assert set(range(8, 20)) <= set(found)
    assert [50, 51] == shelf.stored[-2:]
    assert len(shelf.open) < 12


def test_outcomes_are_told_by_position():
    """Of the encoding, the store, a single send, and a producer that was ended; the rest is sent."""
    outcomes = {
        1: MessageEncodeError("Note", "number", "wrong"),
        2: BusFullError("'w'", 1.0, "no room"),
        3: asyncio.CancelledError(),
    }
    messages = [*notes(3), Note(source="a", target="b", number=3), Note(source="a", number=2)]
    messages.append(Note(source="a", number=4))
    shelf = Shelf(outcomes)
    found = failures_of(shelf, messages)

    assert {
        1: MessageEncodeError,
        2: BusFullError,
        3: BusClosedError,
        4: BusFullError,
        5: BusFullError,
    } == found
    assert ([0], [2]) == (shelf.stored, shelf.sent)


def test_message_without_queue_is_no_failure():
    """It is counted as undelivered, as one that is sent by itself."""
    shelf = Shelf({1: 0})
    run(shelf.send_all(notes(3)))

    assert (1, {"w": 1}) == (shelf.counters.undelivered, dict(shelf.counters.unreached))


def test_cancelled_batch_is_not_stored():
    """What waits is given up, so that the producer passes it over."""

    async def main():
        shelf = Shelf(is_stuck=True)
        sending = asyncio.create_task(shelf.send_all(notes(3)))
        await asyncio.sleep(0)
        assert [False] * 3 == [one.done() for one in shelf.open]
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert [True] * 3 == [one.done() for one in shelf.open]

    run(main())


def test_bus_that_does_not_run_takes_no_batch():
    """The error is that of send(), and no message is touched."""
    shelf = Shelf()
    shelf.is_running = False
    with pytest.raises(BusClosedError, match="not started"):
        run(shelf.send_all(notes(2)))

    assert ([], []) == (shelf.open, shelf.sent)


def test_error_names_the_first_position():
    """A failure of thousands is one line, with all of them in its field."""
    full = BusFullError("'w'", 1.0, "no room")
    error = BatchError(dict.fromkeys(range(3, 2_003), full), 5_000)

    assert "2,000 of 5,000 messages of a batch were not sent; the first, at 3: " in str(error)
    assert str(full.message) in error.message
    assert full is error.failures[2_002]
