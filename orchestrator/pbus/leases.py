"""Leases of the registry: their form in the store, and the interface of a store."""

import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from pbus.errors import BusUnavailableError, LeaseTooLargeError, OtherKeyError, SealError
from pbus.running_handlers import RunningHandler
from pbus.seal import NO_SEAL, Seal
from pbus.structs import DECODE_ERRORS, Label, WorkerName

logger = logging.getLogger(__name__)

LEASE_S = 6.0  # a worker that is silent for so long is lost
HEARTBEAT_S = 2.0  # three beats a lease: one may be late and one lost
WITHOUT_READING = -2  # in place of a version
MAX_LEASES = 10_000  # of a channel; further ones are not read
MAX_LEASE_BYTES = 64 * 1024
MAX_CHILDREN = 100  # in a lease
MAX_RECORDS = 1_000  # of supervisors, likewise
MAX_RECORD_BYTES = 4 * 1024 * 1024
MAX_RECORDS_BYTES = 64 * 1024 * 1024  # of all
LEFT_OUT = (
    "!"  # a store returns it in place of a lease that is too large, with the name; or of too many
)
BRIEF = "="  # what a store returns in place of a lease begins so, where the head is enough
_HEAD_BARS = 4
_CLAIM_TRIES = 5  # others may write a forged lease again as soon as one was removed
_SAME_CLOCK_S = 1.0  # clocks that differ by less are taken for the same


class ChildState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A child, which is known in its process only, as the lease of its root worker carries it.

    Attributes:
        depth: 1 for a child of the root; a child's own follow it.
        started_at: Unix seconds, by the clock of its host.
        received: The number of messages that came to it from the bus.
        working: The number of accepted jobs.
    """

    name: Label
    depth: int = 1
    active: bool = True
    started_at: float = 0.0
    received: int = 0
    sent: int = 0
    working: int = 0


class Lease(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The lease of one root worker.

    Attributes:
        incarnation: Unique to this start of the worker; begins with that of its process.
        session: Of its `pbus up`, or of a runner of its own.
        state: "starting", "ready" or "stopping".
        args: The arguments of the last activation.
        jobs: The names of the jobs it handles.
        started_at: Unix seconds; of a lease that was read, by the reader's clock.
        beat: The last renewal by its own process, likewise; older than LEASE_S in a valid lease
            means that its loop is blocked and a supervisor extends it.
        received: The number of messages handled; likewise sent, lost on the way, and queued.
        working: The number of accepted jobs, queued ones included.
        done: The number of jobs that have ended.
        handler: The handler that had run longest at the last beat; None for none.
        children: At most MAX_CHILDREN, each before its own.
        refused: The number of payloads that its process rejected; unsealed: those of them that were
            not sealed with a key of the channel.
        unreached: The number of messages of its process that reached no process, by target; on one
            lease of each process.
        faults: How often a task of its process' bus was restarted after an error.
        ahead_s: Seconds by which the clock of its host is ahead of the reader's; 0 for equal clocks.
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
    done: int = 0
    handler: RunningHandler | None = None
    children: tuple[ChildState, ...] = ()
    unreached: dict[Label, int] = msgspec.field(default_factory=dict)
    refused: int = 0
    unsealed: int = 0
    faults: int = 0
    ahead_s: float = 0.0


def process_of(incarnation: str) -> str:
    """The incarnation of a worker's process, with which that of the worker begins."""
    return incarnation.rpartition(".")[0]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Lease).decode


def decode_leases(bodies: Iterable[bytes | str], seal: Seal = NO_SEAL) -> list[Lease]:
    """Decode leases from a store; unreadable ones are left out with a warning.

    Copies of a lease under other names are left out, too: the newest counts.

    Args:
        bodies: Leases as JSON, each after a line with the milliseconds since its renewal, by the
            broker's clock; or BRIEF, name and head, on a channel without a key.
        seal: Of the channel.

    Returns:
        The leases, sorted by name.
    """
    found: dict[str, Lease] = {}
    for body in bodies:
        stored = body.encode() if isinstance(body, str) else body
        if stored.startswith(LEFT_OUT.encode()):
            _say_left_out(stored[len(LEFT_OUT) :].decode(errors="replace"))
            continue
        try:
            is_brief = stored.startswith(BRIEF.encode()) and seal is NO_SEAL
            lease = _read_brief(stored) if is_brief else _read(stored, seal)
        except (*DECODE_ERRORS, OverflowError, SealError) as error:
            warn_unreadable_once("a lease", str(error))
            continue
        other = found.setdefault(lease.name, lease)
        if lease.beat + lease.ahead_s > other.beat + other.ahead_s:
            found[lease.name] = lease
    return [found[name] for name in sorted(found)]


def truly_expired(expired: Iterable[Lease], live: Iterable[Lease] | None) -> list[Lease]:
    """The expired leases that are not copies, under other names, of live ones."""
    alive = {(lease.name, lease.incarnation) for lease in live or ()}
    return [lease for lease in expired if (lease.name, lease.incarnation) not in alive]


def lease_text(body: bytes | str) -> bytes:
    """The lease without the line with its age."""
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
    """Whether the entry under the name of a lease is no lease of another incarnation.

    Args:
        body: The entry.
        wanted: The lease to store.
        seal: Of the channel.
    """
    try:
        lease = _decode(seal.open("lease", lease_text(body)))
    except OtherKeyError:
        return False
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
    """Encode a lease; arguments for which it has no room are left out with an error in the log.

    Raises:
        LeaseTooLargeError: It is too large without them, too.
    """
    body = seal.close("lease", _encode(lease))
    if len(body) > MAX_LEASE_BYTES and lease.args:
        _say_too_large(lease.name)
        body = seal.close("lease", _encode(msgspec.structs.replace(lease, args=None)))
    if len(body) > MAX_LEASE_BYTES:
        raise LeaseTooLargeError(f"the lease of worker {lease.name!r}", len(body), MAX_LEASE_BYTES)
    return body


_WHAT_RECORD = {"record": "a supervisor's record", "stats": "what a process counted"}


def close_record(
    key: str, record: bytes, seal: Seal, kind: Literal["record", "stats"] = "record"
) -> bytes:
    """Seal the record of a supervisor, or the counts of a process, for the store.

    Raises:
        LeaseTooLargeError: It is too large.
    """
    sealed = seal.close(kind, record, key.encode())
    if len(sealed) > MAX_RECORD_BYTES:
        raise LeaseTooLargeError(f"the record of {key!r}", len(sealed), MAX_RECORD_BYTES)
    return sealed


@functools.lru_cache(maxsize=64)
def _say_too_large(name: str) -> None:
    """Log once a name: leases are renewed every few seconds."""
    logger.error(
        "the lease of %r has no room for the arguments of its activation, at most %d bytes: others see it"
        " without them",
        name, MAX_LEASE_BYTES,
    )  # fmt: skip


def _read(body: bytes, seal: Seal) -> Lease:
    """Decode a lease, with its times converted to the clock of this process."""
    age_ms, line_end, text = body.partition(b"\n")
    lease = _decode(seal.open("lease", text if line_end else body))
    if line_end and lease.beat:
        ahead_s = lease.beat - (time.time() - int(age_ms) / 1000)
        if abs(ahead_s) > _SAME_CLOCK_S:
            lease.ahead_s = ahead_s
            lease.beat -= ahead_s
            lease.started_at -= ahead_s
            if (handler := lease.handler) is not None:
                since = handler.since - ahead_s
                lease.handler = msgspec.structs.replace(handler, since=since)
    return lease


def head_of(lease: Lease) -> str:
    """What stores compare to tell a change, and all that a registry needs of another's lease."""
    started_at = lease.started_at
    return f"{lease.incarnation}|{lease.state}|{int(lease.active)}|{started_at!r}|{lease.runner}"


def _read_brief(stored: bytes) -> Lease:
    """Decode name and head; its times are those of its host's clock."""
    name, _, head = stored.decode()[len(BRIEF) :].partition("\n")
    incarnation, state, active, started_at, runner = head.split("|", _HEAD_BARS)
    told = {
        "name": name, "incarnation": incarnation, "state": state, "active": active == "1",
        "started_at": float(started_at), "runner": runner, "host": "", "pid": 0,
    }  # fmt: skip
    return msgspec.convert(told, Lease)


def decode_holder(body: bytes | str, name: str, seal: Seal = NO_SEAL) -> Lease:
    """Decode the lease of the holder of a name; with placeholders when it is unreadable."""
    unknown = Lease(name=name, incarnation="?", runner="?", host="?", pid=0)
    return next(iter(decode_leases([body], seal)), unknown)


@functools.lru_cache(maxsize=64)
def warn_unreadable_once(what: str, problem: str) -> None:
    """Warn once that something of the registry is left out: it is read every few seconds."""
    logger.warning("%s is left out: %s; does another version of pbus share the bus?", what, problem)


class Activation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last activation of a worker, kept over its restarts within a session."""

    session: str | None = None
    active: bool = True
    args: dict[str, Any] | None = None


def encode_activation(name: str, activation: Activation, seal: Seal) -> bytes:
    """Encode and seal the activation of a worker."""
    return seal.close("activation", _encode(activation), name.encode())


def decode_activation(name: str, body: bytes | str, seal: Seal = NO_SEAL) -> Activation | None:
    """Decode the activation of a worker; None, with a warning, when it is unreadable."""
    stored = body.encode() if isinstance(body, str) else body
    try:
        return _decode_activation(seal.open("activation", stored, name.encode()))
    except (*DECODE_ERRORS, SealError) as error:
        warn_unreadable_once("an activation", str(error))
        return None


_decode_activation = msgspec.json.Decoder(Activation).decode


def open_records(
    records: Mapping[str, bytes], seal: Seal, kind: Literal["record", "stats"] = "record"
) -> dict[str, bytes]:
    """Open the seals of what close_record() sealed; wrong ones are left out with a warning."""
    opened = {}
    for key, record in records.items():
        try:
            opened[key] = seal.open(kind, record, key.encode())
        except SealError as error:
            warn_unreadable_once(_WHAT_RECORD[kind], str(error))
    return opened


class Since(msgspec.Struct, frozen=True):
    """The state that a reader of leases has, so that it is told the differences only.

    Attributes:
        version: Of the last renewal.
        epoch: Likewise.
        names: Leases that are read in any case.
        is_brief: Whether name, incarnation, runner, state, activity and start are enough of each lease;
            a store may return all the same. Nothing vouches for them: a channel with a key has all read.
    """

    version: int
    epoch: int = 0
    names: tuple[str, ...] = ()
    is_brief: bool = False


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a renewal.

    Attributes:
        version: The number of changes of membership, for the next renewal.
        epoch: Of the numbers; those of another epoch cannot be compared.
        leases: All live leases; None without changes since the version given, or without a reading.
        absent: Names without a lease among those that changed; None when `leases` has all there are.
        expired: Leases that ran out and were removed by this call; the caller announces them.
        refused: Names that belong to another incarnation now.
        holders: Their leases, as far as they are known.
    """

    version: int
    leases: list[Lease] | None
    expired: list[Lease]
    refused: list[str]
    epoch: int = 0
    absent: list[str] | None = None
    holders: dict[str, Lease] = msgspec.field(default_factory=dict)


class LeaseStore(Protocol):
    """The registry's storage in the broker. Each call may raise BusUnavailableError."""

    async def claim(self, lease: Lease) -> Lease | None:
        """Claim a name for LEASE_S, or renew the lease of the same incarnation.

        Returns:
            None on success, else the live lease of another incarnation that has the name.
        """
        ...

    async def renew(self, leases: Sequence[Lease], *, version: int | Since = -1) -> Renewal:
        """Store leases for another LEASE_S, and remove those that ran out.

        Leases that the broker lost are put back.

        Args:
            leases: Of this process; none for a plain read.
            version: Of the last renewal: all leases are read if there were changes. A `Since` for
                the changed ones, as far as the store knows them; -1 for a full reading,
                WITHOUT_READING for none.
        """
        ...

    async def extend(self, incarnations: Sequence[str]) -> None:
        """Extend live leases of processes (by incarnation prefix) without a beat of their own."""
        ...

    async def release(
        self, incarnations: Sequence[str], *, names: Sequence[str] | None = None
    ) -> list[Lease]:
        """Remove the leases of processes (by incarnation prefix).

        Args:
            incarnations: Of the processes, or of workers.
            names: The only names that the leases have, if they are known: others are not looked at.

        Returns:
            The removed leases.
        """
        ...

    async def leases(self) -> list[Lease]:
        """All live leases, by name."""
        ...

    async def set_activation(self, name: str, activation: Activation) -> None:
        """Store the activation of a worker."""
        ...

    async def activation(self, name: str) -> Activation | None:
        """The stored activation of a worker; None when there is none."""
        ...

    async def put_record(self, key: str, record: bytes, *, ttl_s: float) -> None:
        """Store the record of a supervisor for some seconds."""
        ...

    async def records(self) -> dict[str, bytes]:
        """All live records by key."""
        ...

    async def drop_record(self, key: str) -> None:
        """Remove a record."""
        ...

    async def put_stats(self, key: str, stats: bytes, *, ttl_s: float) -> None:
        """Store the counts of a process for some seconds."""
        ...

    async def stats(self, key: str | None = None) -> dict[str, bytes]:
        """The stored counts of all processes by key, or those of one key."""
        ...
