"""Leases: what the store behind the registry holds, and what a store must be able to do."""

import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from pbus.errors import BusUnavailableError, LeaseTooLargeError, SealError
from pbus.seal import NO_SEAL, Seal
from pbus.structs import DECODE_ERRORS, Label, WorkerName

logger = logging.getLogger(__name__)

LEASE_S = 6.0  # a worker silent for so long is lost
HEARTBEAT_S = 2.0  # three beats a lease: one may be late and one lost
MAX_LEASES = 10_000  # of a channel; what strangers wrote beyond that is not read
MAX_LEASE_BYTES = 64 * 1024
MAX_RECORDS = 1_000  # of supervisors, likewise
MAX_RECORD_BYTES = 4 * 1024 * 1024
MAX_RECORDS_BYTES = 64 * 1024 * 1024  # of all
LEFT_OUT = (
    "!"  # a store returns it in place of a lease that is too large, with the name; or of too many
)
_CLAIM_TRIES = 5  # others may write a forged lease again as soon as one was removed
_SAME_CLOCK_S = 1.0  # clocks that differ by less are taken for the same


class Lease(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One root worker as the channel knows it.

    Attributes:
        incarnation: Unique to this life of the worker; begins with its process's incarnation.
        session: The `pbus up` (or the hand-made runner) it belongs to.
        address: The sending process's incarnation, for flow control and gap reports.
        state: "starting", "ready" or "stopping".
        args: Arguments of the last activation.
        jobs: Names of the jobs it answers.
        started_at: Unix seconds; of a lease that was read, by the reader's clock.
        beat: When its own process last renewed it, likewise; older than LEASE_S while the
            lease lives means the loop is blocked and a supervisor renews for it.
        received: Messages handled; sent, lost (noticed missing) and queued (waiting) likewise.
        working: Jobs in hand, those that wait for their turn included.
        refused: Payloads that its process did not accept; unsealed those of them that were not sealed
            with a key of the channel.
        unreached: What its process sent to others that reached no process, by their names; on one of
            the leases of a process.
        faults: How often a task of its process' bus ended by an error, and was begun again.
        ahead_s: By how much the clock of its host is ahead of the reader's; 0 where they agree.
    """

    name: WorkerName
    incarnation: Label
    runner: Label
    host: Label
    pid: int
    session: Label | None = None
    state: Label = "starting"
    active: bool = True
    args: dict[str, Any] | None = None
    jobs: tuple[Label, ...] = ()
    started_at: float = 0.0
    beat: float = 0.0
    received: int = 0
    sent: int = 0
    lost: int = 0
    queued: int = 0
    working: int = 0
    unreached: dict[Label, int] = msgspec.field(default_factory=dict)
    refused: int = 0
    unsealed: int = 0
    faults: int = 0
    ahead_s: float = 0.0


def process_of(incarnation: str) -> str:
    """The incarnation of a worker's process: that of the worker begins with it."""
    return incarnation.rpartition(".")[0]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Lease).decode


def decode_leases(bodies: Iterable[bytes | str], seal: Seal = NO_SEAL) -> list[Lease]:
    """Leases as the store returns them, by name; what this version of pbus cannot read is left out.

    Copies of a lease under other names are left out, too: the newest counts.

    Args:
        bodies: A lease as JSON; before it, in a line of its own, the milliseconds since it was
            renewed, by the broker's clock.
        seal: Of the channel.
    """
    found: dict[str, Lease] = {}
    for body in bodies:
        stored = body.encode() if isinstance(body, str) else body
        if stored.startswith(LEFT_OUT.encode()):
            _say_left_out(stored[len(LEFT_OUT) :].decode(errors="replace"))
            continue
        try:
            lease = _read(stored, seal)
        except (*DECODE_ERRORS, OverflowError, SealError) as error:
            warn_unreadable_once("a lease", str(error))
            continue
        other = found.setdefault(lease.name, lease)
        if lease.beat + lease.ahead_s > other.beat + other.ahead_s:
            found[lease.name] = lease
    return [found[name] for name in sorted(found)]


def truly_expired(expired: Iterable[Lease], live: Iterable[Lease] | None) -> list[Lease]:
    """Those that are not copies, under other names, of leases that live."""
    alive = {(lease.name, lease.incarnation) for lease in live or ()}
    return [lease for lease in expired if (lease.name, lease.incarnation) not in alive]


def lease_text(body: bytes | str) -> bytes:
    """The lease without the line that tells its age."""
    stored = body.encode() if isinstance(body, str) else body
    before, line_end, text = stored.partition(b"\n")
    return text if line_end else before


async def claim_name(
    lease: Lease,
    seal: Seal,
    url: str,
    *,
    claim: Callable[[Lease], Awaitable[bytes | str | None]],
    evict: Callable[[str, bytes], Awaitable[object]],
) -> Lease | None:
    """Take a name; what is no lease of another and stands in the way is removed.

    Args:
        lease: To be stored.
        seal: Of the channel.
        url: Where the store is.
        claim: Stores the lease, or returns what has the name.
        evict: Removes what has a name, if it still ends so.

    Returns:
        The lease that has the name; None: it is taken.

    Raises:
        BusUnavailableError: The store does not answer, or others write there again and again.
    """
    for _ in range(_CLAIM_TRIES):
        holder = await claim(lease)
        if holder is None:
            return None
        if not _is_forged(holder, lease, seal):
            return decode_holder(holder, lease.name, seal)
        await evict(lease.name, lease_text(holder))
    raise BusUnavailableError(url, f"others write leases of {lease.name!r}")


def released_by(
    incarnations: Sequence[str], bodies: Iterable[bytes | str], seal: Seal
) -> list[Lease]:
    """Leases that a store released, those left out that are not of the incarnations: copied ones."""
    return [
        lease
        for lease in decode_leases(bodies, seal)
        if lease.incarnation.startswith(tuple(incarnations))
    ]


def _is_forged(body: bytes | str, wanted: Lease, seal: Seal) -> bool:
    """Whether what keeps a lease from its name is no lease of another incarnation.

    Args:
        body: As the store returns it.
        wanted: The lease that was to be stored.
        seal: Of the channel.
    """
    try:
        lease = _decode(seal.open("lease", lease_text(body)))
    except (*DECODE_ERRORS, SealError) as error:
        warn_unreadable_once("a lease", str(error))
        return True
    # Of another name: copied. Our own: what stands beside it was changed.
    return lease.name != wanted.name or lease.incarnation == wanted.incarnation


def _say_left_out(name: str) -> None:
    if name:
        warn_unreadable_once("a lease", f"that of {name!r} has more than {MAX_LEASE_BYTES:,} bytes")
    else:
        warn_unreadable_once("a lease", f"the channel has more than {MAX_LEASES:,} leases")


def encode_lease(lease: Lease, seal: Seal) -> bytes:
    """A lease as it is stored; arguments for which it has no room are not in it, which is said.

    Raises:
        LeaseTooLargeError: There is no room without them either.
    """
    body = seal.close("lease", _encode(lease))
    if len(body) > MAX_LEASE_BYTES and lease.args:
        _say_too_large(lease.name)
        body = seal.close("lease", _encode(msgspec.structs.replace(lease, args=None)))
    if len(body) > MAX_LEASE_BYTES:
        raise LeaseTooLargeError(f"the lease of worker {lease.name!r}", len(body), MAX_LEASE_BYTES)
    return body


def close_record(key: str, record: bytes, seal: Seal) -> bytes:
    """A supervisor's record as it is stored.

    Raises:
        LeaseTooLargeError: It is too large.
    """
    sealed = seal.close("record", record, key.encode())
    if len(sealed) > MAX_RECORD_BYTES:
        raise LeaseTooLargeError(f"the record of {key!r}", len(sealed), MAX_RECORD_BYTES)
    return sealed


@functools.lru_cache(maxsize=64)
def _say_too_large(name: str) -> None:
    """Say it once: leases are renewed every few seconds."""
    logger.error(
        "the lease of %r has no room for the arguments of its activation, at most %d bytes: others see it"
        " without them",
        name, MAX_LEASE_BYTES,
    )  # fmt: skip


def _read(body: bytes, seal: Seal) -> Lease:
    """A lease, its times by the clock of this process: that of its host may be wrong."""
    age_ms, line_end, text = body.partition(b"\n")
    lease = _decode(seal.open("lease", text if line_end else body))
    if line_end and lease.beat:
        ahead_s = lease.beat - (time.time() - int(age_ms) / 1000)
        if abs(ahead_s) > _SAME_CLOCK_S:
            lease.ahead_s = ahead_s
            lease.beat -= ahead_s
            lease.started_at -= ahead_s
    return lease


def decode_holder(body: bytes | str, name: str, seal: Seal = NO_SEAL) -> Lease:
    """Who has a name, as far as that can be read."""
    unknown = Lease(name=name, incarnation="?", runner="?", host="?", pid=0)
    return next(iter(decode_leases([body], seal)), unknown)


@functools.lru_cache(maxsize=64)
def warn_unreadable_once(what: str, problem: str) -> None:
    """Say once that something of the registry is left out: it is read every few seconds."""
    logger.warning("%s is left out: %s; does another version of pbus share the bus?", what, problem)


class Activation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether a worker was last told to be active, kept over its restarts within a session."""

    session: str | None = None
    active: bool = True
    args: dict[str, Any] | None = None


def encode_activation(name: str, activation: Activation, seal: Seal) -> bytes:
    """The activation of a worker as it is stored."""
    return seal.close("activation", _encode(activation), name.encode())


def decode_activation(name: str, body: bytes | str, seal: Seal = NO_SEAL) -> Activation | None:
    """The activation of a worker as it is stored; None where it cannot be read."""
    stored = body.encode() if isinstance(body, str) else body
    try:
        return _decode_activation(seal.open("activation", stored, name.encode()))
    except (*DECODE_ERRORS, SealError) as error:
        warn_unreadable_once("an activation", str(error))
        return None


_decode_activation = msgspec.json.Decoder(Activation).decode


def open_records(records: Mapping[str, bytes], seal: Seal) -> dict[str, bytes]:
    """The supervisors' records as they were before they were stored; strangers' are left out."""
    opened = {}
    for key, record in records.items():
        try:
            opened[key] = seal.open("record", record, key.encode())
        except SealError as error:
            warn_unreadable_once("a supervisor's record", str(error))
    return opened


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """What a heartbeat learned.

    Attributes:
        version: Counts changes of membership; pass it back with the next renewal.
        leases: All live leases, or None when nothing changed since the version passed.
        expired: Leases that this call removed because they ran out; the caller announces them.
        refused: Names that meanwhile belong to another incarnation.
    """

    version: int
    leases: list[Lease] | None
    expired: list[Lease]
    refused: list[str]


class LeaseStore(Protocol):
    """The registry's memory in the broker. Every call may raise BusUnavailableError."""

    async def claim(self, lease: Lease) -> Lease | None:
        """Take the name for LEASE_S, or renew it for the same incarnation.

        Returns:
            None when taken, else the live lease of another incarnation that holds the name.
        """
        ...

    async def renew(self, leases: Sequence[Lease], *, version: int = -1) -> Renewal:
        """Store these leases for another LEASE_S and drop those that ran out.

        Leases that a broker outage erased are put back. Without leases it is a plain read.
        """
        ...

    async def extend(self, incarnations: Sequence[str]) -> None:
        """Extend live leases of processes (by incarnation prefix) without a beat of their own."""
        ...

    async def release(self, incarnations: Sequence[str]) -> list[Lease]:
        """Drop the leases of these processes (by incarnation prefix) and return them."""
        ...

    async def leases(self) -> list[Lease]:
        """All live leases, by name."""
        ...

    async def set_activation(self, name: str, activation: Activation) -> None:
        """Remember a worker's activation."""
        ...

    async def activation(self, name: str) -> Activation | None:
        """The activation remembered for a worker."""
        ...

    async def put_record(self, key: str, record: bytes, *, ttl_s: float) -> None:
        """Store a supervisor's snapshot of its processes beside the leases."""
        ...

    async def records(self) -> dict[str, bytes]:
        """All live records by key."""
        ...

    async def drop_record(self, key: str) -> None:
        """Remove a record."""
        ...
