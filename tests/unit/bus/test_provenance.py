"""Names belong to processes: what is let in, refused, and asked about, without a broker."""

import asyncio
import json

import msgspec
import pytest

from pbus.bus.claims import Claims
from pbus.bus.local.router import LocalRouter
from pbus.bus.stream.provenance import Provenance
from pbus.bus.stream.receiver import BatchCompletion, StreamReceiver, UrgentCompletion
from pbus.codec import FORMAT_VERSION, Envelope, encode_payload, origin_of
from pbus.errors import BusUnavailableError
from pbus.leases import Lease
from pbus.messages import Lane
from support.waiting import run, until

AWAY = BusUnavailableError("redis://", "away")


class Known:
    """What a registry of this process knows."""

    def __init__(self, **holders: str) -> None:
        self.holders = holders
        self.former: set[tuple[str, str]] = set()
        self.is_live = True
        self.asked = 0

    def on_asked(self):
        self.asked += 1

    def is_over(self, process):
        del process
        return False

    def holder(self, name):
        return self.holders.get(name)

    def was_holder(self, name, process):
        return (name, process) in self.former


class Setup:
    """A provenance whose registry answers when it is told to."""

    def __init__(self, *presences: Known) -> None:
        self.board = LocalRouter(1.0)
        self.put: list[bytes] = []
        self.leases: list[Lease] = []
        self.asked = 0
        self.failure: Exception | None = None
        self.may_answer = asyncio.Event()
        self.provenance = Provenance(Claims(presences, self._ask), self.board, self._put)

    def _put(self, address, lane, lines, receipt):
        del address, lane
        self.put += lines
        return 1 if receipt else 0

    async def _ask(self):
        self.asked += 1
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return self.leases

    def hear(self, sender: str, *lines: bytes, lane: Lane = Lane.DATA) -> None:
        completion = UrgentCompletion(StreamReceiver(None), 0)
        self.provenance.deliver(sender, "victim", lane, list(lines), completion)


def line(source: str, number: int = 0, kind: str = "Ping") -> bytes:
    """A message as pbus writes it."""
    return json.dumps({"type": kind, "source": source, "n": number}, separators=(",", ":")).encode()


def lease(name: str, process: str) -> Lease:
    """Of a worker's incarnation in a process."""
    return Lease(name=name, incarnation=f"{process}.000001", runner="r", host="h", pid=1)


def with_setup(make_setup, check):
    """Run a check while the setup's provenance runs."""

    async def main() -> None:
        setup = make_setup()
        running = asyncio.create_task(setup.provenance.run())
        try:
            await check(setup)
        finally:
            running.cancel()
            await asyncio.wait({running})

    run(main())


def test_holder_and_free_names_pass_without_a_question():
    """The holder's messages, and those in names of no worker, are put at once."""

    async def check(setup: Setup) -> None:
        lines = [line("clerk", 1), line("cli-1", 2), line("clerk", 3, "Other")]
        setup.hear("p1", *lines)
        assert lines == setup.put
        assert 0 == setup.asked

    with_setup(lambda: Setup(Known(clerk="p1")), check)


def test_view_that_is_not_live_says_of_no_name_that_it_is_free():
    """A name that such a view lacks is looked up, and the view is asked to hear of changes."""

    async def check(setup: Setup) -> None:
        known.is_live = False
        setup.leases = [lease("late", "p1")]
        setup.may_answer.set()
        setup.hear("p1", line("clerk", 1))
        assert ([line("clerk", 1)], 0) == (setup.put, known.asked)
        setup.hear("p2", line("late", 2))
        await until(lambda: setup.board.counters.refused == 1)
        assert 1 == known.asked
        setup.hear("p1", line("late", 3))
        await until(lambda: len(setup.put) == 2)

    known = Known(clerk="p1")
    with_setup(lambda: Setup(known), check)


def test_strangers_are_refused_alone():
    """Of one payload only what has another's name is refused, after the registry was asked."""

    async def check(setup: Setup) -> None:
        setup.leases = [lease("clerk", "p1"), lease("liar", "p2")]
        setup.may_answer.set()
        for lane in Lane:
            setup.hear("p2", line("liar", 1), line("clerk", 2), line("liar", 3), lane=lane)
        await until(lambda: setup.board.counters.refused == 2)
        await until(lambda: len(setup.put) == 4)
        assert [line("liar", 1), line("liar", 3)] * 2 == setup.put

    with_setup(lambda: Setup(Known(clerk="p1", liar="p2")), check)


def test_what_waits_keeps_its_order():
    """While the registry is asked all later messages of that sender wait; others go on."""

    async def check(setup: Setup) -> None:
        setup.leases = [lease("clerk", "p2")]  # restarted; the announcement has not come yet
        setup.hear("p2", line("clerk", 1))
        setup.hear("p2", line("free", 2))
        setup.hear("p3", line("free", 3))
        assert [line("free", 3)] == setup.put
        setup.may_answer.set()
        await until(lambda: len(setup.put) == 3)
        assert [line("clerk", 1), line("free", 2)] == setup.put[1:]
        assert 0 == setup.board.counters.refused

    with_setup(lambda: Setup(Known(clerk="p1")), check)


def test_late_messages_of_a_former_holder_pass():
    """What a worker sent before it ended may come after its successor was announced."""

    async def check(setup: Setup) -> None:
        setup.hear("p1", line("clerk"))
        assert [line("clerk")] == setup.put

    def make_setup() -> Setup:
        known = Known(clerk="p2")
        known.former.add(("clerk", "p1"))
        return Setup(known)

    with_setup(make_setup, check)


@pytest.mark.parametrize("failure", [AWAY, LookupError("a bug")])
def test_unanswered_questions_refuse_nothing(failure):
    """A registry that cannot be asked, whatever fails, is no reason to lose messages."""

    async def check(setup: Setup) -> None:
        setup.failure = failure
        setup.may_answer.set()
        setup.hear("p2", line("clerk"))
        await until(lambda: setup.put)
        assert 0 == setup.board.counters.refused

    with_setup(lambda: Setup(Known(clerk="p1")), check)


def test_without_a_registry_the_store_is_asked():
    """A command has no registry of its own: it asks once, and refuses just the same."""

    async def check(setup: Setup) -> None:
        setup.leases = [lease("clerk", "p1")]
        setup.may_answer.set()
        setup.hear("p2", line("clerk"))
        await until(lambda: setup.board.counters.refused == 1)
        setup.hear("p1", line("clerk"))
        await until(lambda: setup.put)
        assert [line("clerk")] == setup.put

    with_setup(Setup, check)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """While the registry does not answer, what has no room is lost and said, of all senders together."""

    async def check(setup: Setup) -> None:
        setup.hear("p2", line("clerk", 1))
        setup.hear("p3", line("clerk", 2))
        assert 1 == setup.board.counters.lost
        setup.failure = AWAY
        setup.may_answer.set()
        await until(lambda: setup.put)
        assert [line("clerk", 1)] == setup.put

    monkeypatch.setattr("pbus.bus.stream.provenance._MAX_WAITING_BYTES", len(line("clerk", 1)))
    with_setup(lambda: Setup(Known(clerk="p1")), check)


def test_credit_is_returned_for_what_waited():
    """The receipt of a payload that waited is told as often as it was said to be."""

    async def check(setup: Setup) -> None:
        receiver = StreamReceiver(_Sink(setup))
        for first, source in ((1, "clerk"), (2, "liar")):
            envelope = Envelope(FORMAT_VERSION, "p2", 1, Lane.DATA, "victim", first, 1, 0)
            receiver.receive(encode_payload(envelope, [line(source)]), limit=10_000)
        setup.leases = [lease("clerk", "p1"), lease("liar", "p2")]
        setup.may_answer.set()
        await until(lambda: setup.put == [line("liar")])
        refused, taken = setup.receipts
        assert (0, 1) == (refused.left, taken.left)

    with_setup(lambda: Setup(Known(clerk="p1", liar="p2")), check)


class _Sink:
    """What the receiver speaks to."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        setup.receipts = []

    def deliver(self, sender, address, lane, lines, receipt):
        assert isinstance(receipt, BatchCompletion)
        self._setup.receipts.append(receipt)
        return self._setup.provenance.deliver(sender, address, lane, lines, receipt)

    def lost(self, sender, address, count):
        raise AssertionError

    def grant(self, sender, address, number, consumed, limit):
        """Not of interest here."""


@pytest.mark.parametrize(
    "data",
    [
        line("clerk"),
        b'{"source":"clerk","type":"Ping"}',
        b'{ "type" : "Ping", "source" : "clerk" }',
        b'{"type":"Ping","source":"cl\\u0065rk"}',
        b'{"type":"Pi\\u006eg","source":"clerk"}',
        msgspec.msgpack.encode({"type": "Ping", "source": "clerk", "target": None}),
        msgspec.msgpack.encode({"target": None, "source": "clerk", "type": "Ping"}),
    ],
)
def test_source_is_found_however_it_is_written(data: bytes):
    """Also where others wrote the message; the head is a beginning that settles it."""
    head, source = origin_of(data)
    assert "clerk" == source
    assert data.startswith(head)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b'{"type":"', b'{"type":"Ping","source":"cl', b"{}"]
)
def test_broken_messages_have_no_source(data: bytes):
    """What is no message is left to the decoder, which refuses it."""
    assert (data, "") == origin_of(data)
