"""Putting what a transport received into mailboxes."""

import asyncio

import pytest

from pbus.bus.coalescing import EVERYONE, NEWS
from pbus.bus.lane_gate import LaneGate
from pbus.bus.local import decoder
from pbus.bus.local.delivery import UnstoredDelivery
from pbus.bus.local.router import MOST_OBSERVERS, LocalRouter
from pbus.bus.subscriber import BusSubscriber
from pbus.codec import encode_message
from pbus.errors import BusFullError
from pbus.messages import BusDataMessage, BusWorkerReadyMessage, Lane
from support.waiting import run, until


class BoardNote(BusDataMessage):
    """One message."""

    number: int


class Hours:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Counted(UnstoredDelivery):
    """A receipt that counts, and notes how much had been handled then."""

    def __init__(self, heard):
        self.heard = heard
        self.told = []

    def done(self):
        self.told.append(len(self.heard))


class Listener(BusSubscriber):
    """Writes down the numbers it hears."""

    def __init__(self, name):
        self.name = name
        self.heard = []

    async def on_bus_message(self, message):
        self.heard.append(message.number)


def lines(count):
    return [encode_message(BoardNote(source="test", number=number)) for number in range(count)]


def test_receipt_follows_last_line():
    """A payload's receipt is told once, when the last of its messages is handled."""

    async def main():
        board, listener = LocalRouter(1.0), Listener("a")
        mailbox = board.add(listener)
        mailbox.start()
        receipt = Counted(listener.heard)
        assert 1 == board.put_lines("a", Lane.DATA, lines(3), receipt)
        await until(lambda: receipt.told)
        assert ([0, 1, 2], [3]) == (listener.heard, receipt.told)
        await mailbox.stop()

    run(main())


def test_broadcast_receipt_counts_receivers():
    """A broadcast's receipt is told once by each receiver, what is unknown here left out."""

    async def main():
        board, listeners = LocalRouter(1.0), [Listener("a"), Listener("b")]
        mailboxes = [board.add(listener) for listener in listeners]
        for mailbox in mailboxes:
            mailbox.start()
        receipt = Counted(listeners[0].heard)
        unknown = b'{"type":"NeverDefined","source":"test"}'
        assert 0 == board.put_lines(EVERYONE, Lane.DATA, [unknown], receipt)
        assert 2 == board.put_lines(EVERYONE, Lane.DATA, [*lines(2), unknown], receipt)
        await until(lambda: len(receipt.told) == 2)
        assert [[0, 1], [0, 1]] == [listener.heard for listener in listeners]
        assert 2 == board.counters.foreign
        for mailbox in mailboxes:
            await mailbox.stop()

    run(main())


def test_refusals_are_all_told(monkeypatch, caplog):
    """Those that come too soon after one that was logged are logged at the next beat, together."""
    clock, board = Hours(), LocalRouter(1.0)
    monkeypatch.setattr(decoder, "time", clock)
    unknown = b'{"type":"NeverDefined","source":"test","target":"a"}'
    for garbage in (b"first", b"second", unknown):
        assert board._decoder.decode(garbage) is None
    board.tidy()
    assert [True] == [text.endswith("(1 refused so far)") for text in caplog.messages]

    clock.now += 1.0
    board.tidy()
    board.tidy()
    assert 2 == len(caplog.messages)
    assert "NeverDefined" in caplog.messages[1]
    assert "(sent by test)" in caplog.messages[1]
    assert caplog.messages[1].endswith("(3 refused so far)")


def test_news_of_losses_are_bounded():
    """A subscriber that handles nothing is told of losses up to a bound; the counters go on."""
    board, stuck = LocalRouter(1.0), Listener("a")
    urgent = board.add(stuck).lane(Lane.SYSTEM)
    urgent.capacity = 10
    for _ in range(50):
        board.note_lost("s", "a", 2)

    assert 10 == len(urgent)
    assert 100 == board.counters.lost == board.mailboxes()[0].lost


def test_full_mailbox_stops_no_other():
    """A broadcast reaches all that have room, also when one never has."""

    async def main():
        board, stuck, quick = LocalRouter(0.01), Listener("a"), Listener("b")
        full = board.add(stuck).lane(Lane.DATA)
        full.capacity = 1
        heard = board.add(quick)
        heard.start()
        await board.put(BoardNote(source="test", number=1))

        with pytest.raises(BusFullError, match="'a'"):
            await board.put(BoardNote(source="test", number=2))
        await until(lambda: quick.heard == [1, 2])
        assert 1 == len(full)
        assert not full._writers
        await heard.stop()

    run(main())


def news(number):
    return BusWorkerReadyMessage(source=f"w{number}", runner="r")


class Quiet(Listener):
    """Writes down what it hears, and wants no news of workers."""

    news = "none"

    async def on_bus_message(self, message):
        self.heard.append(type(message).__name__)


class Reader(Quiet):
    """One of many that hear them."""

    news = "few"


class Host(Quiet):
    """Must hear all of them."""

    news = "all"


@pytest.mark.parametrize("is_local", [True, False], ids=["local", "received"])
def test_news_go_to_those_that_want_them(is_local):
    """News of workers go to hosts and to a bounded number of others; all else goes to everyone."""

    async def main():
        board = LocalRouter(1.0)
        readers = [Reader(f"reader{number}") for number in range(MOST_OBSERVERS + 2)]
        quiet, host = Quiet("quiet"), Host("host")
        mailboxes = [board.add(one) for one in (*readers, quiet, host)]
        receipt = Counted([])
        messages = [news(1), BoardNote(source="test", number=1), news(2)]
        if is_local:
            for message in messages:
                await board.put(message)
        else:
            payload = [encode_message(message) for message in messages]
            told = board.put_lines(EVERYONE, Lane.DATA, payload, receipt)
            assert len(mailboxes) == told
        for mailbox in mailboxes:
            mailbox.start()
        await until(lambda: all(one.heard for one in (*readers, quiet, host)))
        await until(lambda: not any(mailbox.queued for mailbox in mailboxes))

        ready, note = "BusWorkerReadyMessage", "BoardNote"
        assert [ready, note, ready] == host.heard == readers[0].heard == readers[-3].heard
        assert [note] == quiet.heard == readers[-1].heard == readers[-2].heard
        assert ([] if is_local else [0] * len(mailboxes)) == receipt.told
        for mailbox in mailboxes:
            await mailbox.stop()

    run(main())


@pytest.mark.parametrize("address", [EVERYONE, NEWS])
def test_payload_of_news_only(address):
    """A payload that no subscriber wants is done with at once; news to a target reach it all the same."""

    async def main():
        board, quiet, wanted = LocalRouter(1.0), Quiet("quiet"), []
        board.on_news_wanted = lambda: wanted.append(board.hears_news)
        mailbox = board.add(quiet)
        assert not board.hears_news
        assert 0 == board.put_lines(address, Lane.DATA, [encode_message(news(1))], Counted([]))
        mailbox.start()
        await board.put(BusWorkerReadyMessage(source="w", target="quiet", runner="r"))
        await until(lambda: quiet.heard)
        quiet.news = "few"
        quiet.on_news_wanted()
        await board.put(news(2))
        await until(lambda: len(quiet.heard) == 2)
        assert 1 == board.put_lines(address, Lane.DATA, [encode_message(news(3))], Counted([]))
        board.note_lost("s", address, 1)
        await until(lambda: len(quiet.heard) == 4)
        assert ["BusWorkerReadyMessage", "BusMessagesLostMessage"] == sorted(quiet.heard[2:])[::-1]
        assert board.remove(quiet) is mailbox
        quiet.on_news_wanted()
        assert ([], [True]) == (board.observers(), wanted)
        await mailbox.stop()

    run(main())


def test_idle_mailbox_has_no_reader():
    """A lane has a queue and a task once something came to it, and after a gate opened before it."""

    async def main():
        board, listener = LocalRouter(1.0), Listener("idle")
        gate = LaneGate(is_shut=True)
        listener.gates = {Lane.DATA: gate}
        before = asyncio.all_tasks()
        mailbox = board.add(listener)
        mailbox.start()
        mailbox.lane(Lane.DATA)
        gate.open()
        await asyncio.sleep(0)
        assert before == asyncio.all_tasks()
        assert (0, 0, 0) == (mailbox.queued, mailbox.held, mailbox.unhandled)

        await board.put(BoardNote(source="test", target="idle", number=7))
        await until(lambda: listener.heard == [7])
        await mailbox.stop()
        await board.put(BoardNote(source="test", target="idle", number=8))
        assert (1, 1) == (mailbox.queued, mailbox.unhandled)
        mailbox.start()
        await until(lambda: listener.heard == [7, 8])
        await mailbox.stop()

    run(main())


@pytest.mark.parametrize("is_in_task", [False, True], ids=["in a callback", "in a task"])
def test_readers_that_wait_go_on_at_the_end_of_the_payload(is_in_task):
    """Not before, as the payload is not accounted for yet; beside another task a little later."""

    async def main():
        board, one, two = LocalRouter(1.0), Listener("a"), Listener("b")
        for mailbox in (board.add(one), board.add(two)):
            mailbox.start()
        board.put_lines(EVERYONE, Lane.DATA, lines(1), None)
        await until(lambda: one.heard and two.heard)
        receipt = Counted(one.heard)

        def put():
            board.turns.begin()
            board.put_lines("a", Lane.DATA, lines(2), receipt)
            board.put_lines("a", Lane.DATA, lines(2), None)
            within = [*one.heard]
            board.turns.end()
            return within, [*one.heard], [*receipt.told], [*two.heard]

        if is_in_task:
            assert ([0], [0], [], [0]) == put()
            await until(lambda: len(one.heard) == 5)
        else:
            done = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda: done.set_result(put()))
            assert ([0], [0, 0, 1, 0, 1], [3], [0]) == await done
        assert [0, 0, 1, 0, 1] == one.heard
        board.put_lines("b", Lane.DATA, lines(2), None)  # as before, outside of a payload
        assert [0] == two.heard
        await until(lambda: two.heard == [0, 0, 1])
        for mailbox in board.mailboxes():
            await mailbox.stop()

    run(main())
