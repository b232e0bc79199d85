"""Leases as a store has them: written by whatever version of pbus shares the channel."""

import time

import msgspec
import pytest

from pbus.errors import BusUnavailableError
from pbus.leases import (
    Lease,
    claim_name,
    decode_activation,
    decode_holder,
    decode_leases,
    released_by,
)
from pbus.observe import HostRecord, ProcessRecord, decode_records, merge_rows
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
