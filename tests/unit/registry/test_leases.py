"""Leases as a store has them: written by whatever version of pbus shares the channel."""

import time

import msgspec
import pytest

from pbus.errors import BusUnavailableError
from pbus.leases import (
    ChildState,
    Lease,
    claim_name,
    decode_activation,
    decode_holder,
    decode_leases,
    released_by,
)
from pbus.observe import HostRecord, ProcessRecord, decode_records, merge_rows
from pbus.running_handlers import RunningHandler
from pbus.seal import NO_SEAL
from support.waiting import run


def test_unreadable_leases_are_left_out(caplog):
    """A lease of another version hides no other, and is spoken of once."""
    good = msgspec.json.encode(Lease(name="a", incarnation="i", runner="r", host="h", pid=1))
    bad = b'{"name":"z","incarnation":"i","runner":"r","host":"h","pid":"several"}'

    for _ in range(2):
        assert ["a"] == [lease.name for lease in decode_leases([bad, good])]

    assert 1 == caplog.text.count("a lease is left out")
    assert "$.pid" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "q$(touch x)"),
        ("name", "a\x1b[2J"),
        ("name", "x" * 300),
        ("name", "two\nlines"),
        ("host", "h\x9b31m"),
        ("runner", "r\r"),
        ("jobs", ["load", "do\x1b]52;c;x\x07"]),
        ("state", "\x00"),
        ("handler", {"name": "a\x1b[2J", "since": 1.0}),
        ("handler", {"name": "a", "type": "T\nT", "since": 1.0}),
        ("handler", {"name": "a", "source": "s" * 300, "since": 1.0}),
        ("handler", {"name": "a", "since": "long ago"}),
        ("handler", ["a"]),
        ("children", [{"name": "a\x1b[2J"}]),
        ("children", [{"name": "a", "depth": "deep"}]),
        ("children", [{"depth": 1}]),
        ("done", "many"),
    ],
)
def test_leases_with_strange_names_are_left_out(field: str, value: object):
    """What no pbus would write as a name is not believed when it is read."""
    good = {"name": "a", "incarnation": "i", "runner": "r", "host": "h", "pid": 1}

    assert [] == decode_leases([msgspec.json.encode(good | {field: value})])
    assert [] == decode_leases([
        b'{"name":"\xff","incarnation":"i","runner":"r","host":"h","pid":1}'
    ])
    assert ["a"] == [lease.name for lease in decode_leases([msgspec.json.encode(good)])]


def a_row(*, silent_s: float = 0.0, handler: RunningHandler | None = None, **process):
    """The row of a supervised worker with this lease."""
    now = time.time()
    lease = Lease(
        name="a", incarnation="i.1", runner="r", host="h", pid=1, state="ready",
        beat=now - silent_s, handler=handler,
    )  # fmt: skip
    record = ProcessRecord(name="a", state="ready", incarnation="i", pid=1, **process)
    host = HostRecord(
        project="p", host="h", pid=2, session="s", time=now, bus="b", processes=(record,)
    )
    (supervised,) = merge_rows([lease], [host], now)
    (by_hand,) = merge_rows([lease], [], now)
    return supervised, by_hand


def since(age_s: float) -> RunningHandler:
    """A handler that began so long ago."""
    return RunningHandler(name="job load", type="T", source="stt", since=time.time() - age_s)


def test_row_tells_the_handler():
    """It is in the row at once, and in its text after some seconds."""
    for row in a_row(handler=since(2.0)):
        assert ("job load", "T", "stt", 2.0) == msgspec.structs.astuple(row.handler)
        assert row.doing is None
        assert row.error is None
    for row in a_row(handler=since(41.0)):
        assert "in job load of T from stt, 41 s" == row.doing
        assert row.silent_s < 1.0
    for row in a_row():
        assert (None, None) == (row.handler, row.doing)


def test_row_has_the_children():
    """They are in the row of their root, in its order; times are by the clock that reads them."""
    now = time.time()
    children = (
        ChildState(name="kid", started_at=now + 93.0, received=3, sent=2, working=1),
        ChildState(name="below", depth=2, active=False),
    )
    lease = Lease(
        name="a", incarnation="i.1", runner="r", host="h", pid=1, state="ready",
        beat=now, ahead_s=100.0, children=children,
    )  # fmt: skip
    (read,) = decode_leases([msgspec.json.encode(lease)])
    assert children == read.children
    (row,) = merge_rows([lease], [], now)
    assert [("kid", 1, True, 7.0, 3, 2, 1), ("below", 2, False, None, 0, 0, 0)] == [
        msgspec.structs.astuple(child) for child in row.children
    ]


@pytest.mark.parametrize(("begin", "expected"), [(1e300, 0.0), (-1e300, 1e9)])
def test_impossible_begin_is_bounded(begin: float, expected: float):
    """Times of foreign leases are believed within limits."""
    row, _ = a_row(handler=RunningHandler(name="x", since=begin))
    assert expected == row.handler.running_s


def test_row_of_a_blocked_loop_says_why():
    """Silence, the state of the process and the last handler are the reason."""
    row, by_hand = a_row(silent_s=41.0, handler=since(45.0), cpu_percent=99.6, os_state="running")
    assert ("unresponsive", "unresponsive") == (row.state, by_hand.state)
    assert (
        "its event loop is blocked: no heartbeat for 41 s; its process uses 100 % of a core;"
        " at the last one it was in job load of T from stt"
    ) == row.error
    assert by_hand.error == row.error.replace(" its process uses 100 % of a core;", "")
    stopped, _ = a_row(silent_s=41.0, cpu_percent=0.0, os_state="stopped")
    assert "its process is stopped (SIGCONT lets it go on)" in stopped.error
    assert 41.0 == stopped.silent_s


def test_handler_is_told_by_the_clock_of_the_reader():
    """A host whose clock is ahead reports no handler of the future."""
    now, ahead_s = time.time(), 3600.0
    lease = Lease(
        name="a", incarnation="i", runner="r", host="h", pid=1, beat=now + ahead_s,
        handler=RunningHandler(name="x", since=now + ahead_s - 41.0),
    )  # fmt: skip
    (read,) = decode_leases([b"0\n" + msgspec.json.encode(lease)])
    assert 41.0 == pytest.approx(read.handler.age_s(time.time()), abs=0.9)


@pytest.mark.parametrize("body", [b"", b"\xff", b'{"active":7}', b"[" * 100_000])
def test_unreadable_activation_is_none(body: bytes):
    """A worker whose stored activation is garbage begins as its file says."""
    assert decode_activation("a", body) is None


def test_unreadable_holder_has_the_name():
    """A name is taken from any holder."""
    holder = decode_holder(b"{}", "x")

    assert ("x", "?") == (holder.name, holder.runner)


def lease(name: str, incarnation: str) -> Lease:
    """One of some incarnation."""
    return Lease(name=name, incarnation=incarnation, runner="r", host="h", pid=1)


class Place:
    """Where one name's lease stands; what is evicted is followed by the next."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = list(bodies)
        self.evicted: list[bytes] = []

    async def claim(self, wanted: Lease) -> bytes | None:
        del wanted
        return self.bodies[0] if self.bodies else None

    async def evict(self, name: str, body: bytes) -> None:
        assert "a" == name
        self.evicted.append(body)
        del self.bodies[0]


def claimed(place: Place) -> Lease | None:
    """The name a, by an incarnation of ours."""
    ours = lease("a", "ours")
    return run(claim_name(ours, NO_SEAL, "redis://x", claim=place.claim, evict=place.evict))


def test_forged_leases_make_way():
    """What is none, a copy of another's and one that says it is ours are removed; a real one stays."""
    forged = [b"{}", *(msgspec.json.encode(lease(*one)) for one in (("b", "x"), ("a", "ours")))]
    theirs = lease("a", "theirs")

    assert claimed(empty := Place(*forged)) is None
    assert forged == empty.evicted
    assert theirs == claimed(Place(*forged, msgspec.json.encode(theirs)))


def test_forging_again_and_again_is_an_error():
    """The claim ends, and says why."""
    with pytest.raises(BusUnavailableError, match="others write leases of 'a'"):
        claimed(Place(*[b"{}"] * 100))


def test_copied_leases_are_not_released():
    """Only the incarnations in question are reported."""
    bodies = [msgspec.json.encode(lease(*one)) for one in (("a", "x.1"), ("b", "y.1"))]

    assert ["a"] == [one.name for one in released_by(["x", "z"], bodies, NO_SEAL)]


def test_unreadable_records_are_left_out(caplog):
    """So is a supervisor's record, which hides no other."""
    now = time.time()
    good = HostRecord(project="p", host="h", pid=1, session="s", time=now, bus="", processes=())

    found = decode_records({"a": b'{"project":7}', "b": msgspec.json.encode(good)})

    assert [good] == found
    assert "a supervisor's record is left out" in caplog.text


@pytest.mark.parametrize("ahead_s", [10.0, 120.0, -10.0, -120.0])
def test_records_of_a_moved_clock(ahead_s: float):
    """How long processes run is told by the reader's clock, whatever their supervisor's says."""
    then = time.time() + ahead_s
    process = ProcessRecord(name="w", state="ready", started_at=then - 30)
    record = HostRecord(
        project="p", host="h", pid=1, session="s", time=then, bus="", processes=(process,)
    )
    (row,) = merge_rows([], decode_records({"a": msgspec.json.encode(record)}), time.time())

    assert 30 == pytest.approx(row.uptime_s, abs=1)
