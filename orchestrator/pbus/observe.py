"""Rows of `pbus ps`: records of supervisors joined with leases of workers, as immutable values."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from pbus.leases import LEASE_S, ChildState, Lease, warn_unreadable_once
from pbus.running_handlers import HandlerStatus
from pbus.structs import DECODE_ERRORS, Label

SHOWN_HANDLER_S = 5.0  # people are told of handlers that have run for so long

_MOVED_S = 2.0  # smaller differences are not reported
_RECORD_AGE_S = (-1.0, 3.0)  # written each second; another age comes from another clock

RUN_PREFIX = "run-"  # of the incarnations of workers that `pbus run` hosts

State = Literal[
    "waiting",
    "starting",
    "ready",
    "unhealthy",
    "unresponsive",
    "backoff",
    "stopping",
    "exited",
    "failed",
]


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One supervised worker process, as its supervisor sees it.

    Attributes:
        state: Any but unresponsive.
        joins: Whether the process is expected in the registry.
        incarnation: Prefix of the incarnations in this process.
        started_at: Unix seconds; None while it does not run.
        cpu_percent: Percent of one core, over the last second.
        os_state: The state of the process in words of the system, as "running" or "stopped".
        is_probed: The ready probe has succeeded, or there is none.
        has_succeeded: It ended, and that counts as a good end.
        reason: Cause of a failure, of bad health, of a wait for a start, or of the end that pbus wants.
        last_end: The end of the last process, if it was never ready; until one is.
        error: The line of its last process that most likely tells the cause.
    """

    name: Label
    state: State
    joins: bool = True
    pid: int | None = None
    incarnation: str | None = None
    started_at: float | None = None
    restarts: int = 0
    exit_code: int | None = None
    cpu_percent: float | None = None
    rss_bytes: int | None = None
    os_state: Label = ""
    is_probed: bool = True
    has_succeeded: bool = False
    reason: str | None = None
    error: str | None = None
    last_end: str | None = None

    @property
    def trouble(self) -> str | None:
        """The cause of a failure or wait, with the worker's own line; None otherwise."""
        return join_reason(self.reason, self.error)

    @property
    def described_state(self) -> str:
        """The state with its cause; some causes name the state themselves."""
        if not self.trouble or self.trouble.startswith(self.state):
            return self.trouble or self.state
        return f"{self.state}, {self.trouble}"


def join_reason(reason: str | None, error: str | None) -> str | None:
    """Join a reason and the line that explains it, unless they are the same."""
    if reason and error and error not in reason:
        return f"{reason}: {error}"
    return reason or error


class HostRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record that a supervisor writes beside the leases, each second and at each change.

    Attributes:
        time: Time of writing, Unix seconds.
        bus: The broker's URL, its password masked.
        address: The supervisor's address for control messages; empty for one that takes none.
    """

    project: Label
    host: Label
    pid: int
    session: Label
    time: float
    bus: Label
    processes: tuple[ProcessRecord, ...]
    address: Label = ""


_decode_record = msgspec.json.Decoder(HostRecord).decode


def decode_records(records: Mapping[str, bytes]) -> list[HostRecord]:
    """Decode stored records; those that this version of pbus cannot read are left out.

    Their times are converted to the clock of this process, where that of their host differs.
    """
    hosts = []
    for _, raw in sorted(records.items()):
        try:
            hosts.append(_by_our_clock(_decode_record(raw)))
        except DECODE_ERRORS as error:
            warn_unreadable_once("a supervisor's record", str(error))
    return hosts


def _by_our_clock(host: HostRecord) -> HostRecord:
    behind_s = time.time() - host.time
    if _RECORD_AGE_S[0] <= behind_s <= _RECORD_AGE_S[1]:
        return host
    processes = tuple(
        msgspec.structs.replace(one, started_at=one.started_at + behind_s)
        if one.started_at
        else one
        for one in host.processes
    )
    return msgspec.structs.replace(host, time=host.time + behind_s, processes=processes)


class ChildRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that another one added, in the row of its root.

    Attributes:
        depth: 1 for a child of the root.
        working: The number of accepted jobs.
    """

    name: str
    depth: int
    active: bool
    uptime_s: float | None
    received: int
    sent: int
    working: int


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `pbus ps`; its fields are the keys of the JSON output.

    Attributes:
        uptime_s: Seconds since the process (or the worker) started; None while it does not run.
        cpu_percent: Percent of one core.
        lost: Messages lost on the way to it, and those that reached no process.
        queued: Messages waiting in its mailboxes.
        refused: Payloads that its process did not accept: no messages, or not sealed with the key.
        error: Cause of a failure, of bad health, of silence or of a wait for a start; None otherwise.
        silent_s: Seconds since the last heartbeat; None for a worker without a lease.
        handler: The handler that had run longest by then; None for none.
        children: The workers within it, each before its own; no others know them.
    """

    name: str
    state: State
    ready: bool
    active: bool
    runner: str | None
    host: str | None
    pid: int | None
    uptime_s: float | None
    restarts: int
    cpu_percent: float | None
    rss_bytes: int | None
    received: int
    sent: int
    lost: int
    queued: int
    refused: int
    error: str | None = None
    silent_s: float | None = None
    handler: HandlerStatus | None = None
    children: tuple[ChildRow, ...] = ()

    @property
    def doing(self) -> str | None:
        """The handler that has run for long, as text; None where none has."""
        handler = self.handler
        return str(handler) if handler and handler.running_s >= SHOWN_HANDLER_S else None


def refused_strangers(leases: Iterable[Lease]) -> list[str]:
    """Return a sentence for each process that refused payloads without the channel's key."""
    by_runner = {lease.runner: lease for lease in leases if lease.unsealed}
    return [
        f"the process of {lease.name} refused {lease.unsealed:,} payloads that were not sealed with the"
        " bus' key; its log says why"
        for _, lease in sorted(by_runner.items())
    ]


def merge_rows(leases: Sequence[Lease], hosts: Iterable[HostRecord], now: float) -> list[WorkerRow]:
    """Join the processes of supervisors with the workers of the registry.

    Args:
        leases: The live leases of the channel.
        hosts: The records of all supervisors on it.
        now: Unix seconds by the clock of this process.

    Returns:
        One row a worker, processes in topology order first, then hand-started workers by name.
    """
    by_name: Mapping[str, Lease] = {lease.name: lease for lease in leases}
    unreached = count_unreached(leases)
    rows = []
    seen = set()
    for record in hosts:
        for process in record.processes:
            seen.add(process.name)
            rows.append(_joined_row(process, by_name.get(process.name), record, now))
    rows.extend(
        _lease_row(lease, now) for name, lease in sorted(by_name.items()) if name not in seen
    )
    return [_with_unreached(row, unreached.get(row.name, 0)) for row in rows]


def _joined_row(
    process: ProcessRecord, lease: Lease | None, record: HostRecord, now: float
) -> WorkerRow:
    if lease is not None and lease.incarnation.startswith(RUN_PREFIX):
        return _lease_row(lease, now)  # the supervised one was stopped for it
    own = lease if lease is not None and _is_of(lease, process) else None
    return _process_row(process, own, record, now)


def count_unreached(leases: Iterable[Lease]) -> Counter[str]:
    """Count the messages to each name that reached no process, by their live senders."""
    counts: Counter[str] = Counter()
    for lease in leases:
        counts.update(lease.unreached)
    return counts


def unreached_strangers(leases: Sequence[Lease], hosts: Iterable[HostRecord]) -> list[str]:
    """Return a sentence for each name without a row whose messages reached no process."""
    names = {lease.name for lease in leases}
    names |= {process.name for host in hosts for process in host.processes}
    return [
        f"{count:,} messages to {name!r} reached no process"
        for name, count in sorted(count_unreached(leases).items())
        if name not in names
    ]


def _with_unreached(row: WorkerRow, count: int) -> WorkerRow:
    return msgspec.structs.replace(row, lost=row.lost + count) if count else row


def _is_of(lease: Lease, process: ProcessRecord) -> bool:
    return process.incarnation is not None and lease.incarnation.startswith(process.incarnation)


def is_unresponsive(lease: Lease, now: float) -> bool:
    """Whether a worker's process has not renewed its lease for too long."""
    return bool(lease.beat) and now - lease.beat > LEASE_S


def moved_clocks(leases: Iterable[Lease]) -> dict[str, str]:
    """Return a sentence for each host whose clock differs from this one's, by host."""
    ahead_s = {lease.host: lease.ahead_s for lease in leases if abs(lease.ahead_s) >= _MOVED_S}
    return {
        host: f"the clock of {host} is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'}"
        " this one's: pbus goes by the broker's, but times in logs are each host's own"
        for host, ahead in sorted(ahead_s.items())
    }


def _lease_state(lease: Lease, now: float) -> State:
    if is_unresponsive(lease, now):
        return "unresponsive"
    if lease.state == "stopping":
        return "stopping"
    return "ready" if lease.state == "ready" else "starting"


_NO_LEASE = Lease(name="", incarnation="", runner="", host="", pid=0)


def _process_row(
    process: ProcessRecord, lease: Lease | None, host: HostRecord, now: float
) -> WorkerRow:
    known = lease or _NO_LEASE
    state = _process_state(process, lease, now)
    return WorkerRow(
        name=process.name,
        state=state,
        ready=state == "ready",
        active=state == "ready" and known.active,
        runner=known.runner or None,
        host=host.host,
        pid=process.pid,
        uptime_s=_age(process.started_at, now),
        restarts=process.restarts,
        cpu_percent=process.cpu_percent,
        rss_bytes=process.rss_bytes,
        received=known.received,
        sent=known.sent,
        lost=known.lost,
        queued=known.queued,
        refused=known.refused,
        error=process.trouble or _blocked_text(state, known, process, now),
        **_doing(lease, now),
    )


def _process_state(process: ProcessRecord, lease: Lease | None, now: float) -> State:
    state: State = process.state
    if lease is None:
        return "starting" if process.joins and state == "ready" else state
    if state in {"starting", "ready"}:
        state = _lease_state(lease, now)
        if state == "ready" and not process.is_probed:
            return "starting"
    return state


def _lease_row(lease: Lease, now: float) -> WorkerRow:
    state = _lease_state(lease, now)
    return WorkerRow(
        name=lease.name,
        state=state,
        ready=state == "ready",
        active=state == "ready" and lease.active,
        runner=lease.runner,
        host=lease.host,
        pid=lease.pid,
        uptime_s=_age(lease.started_at or None, now),
        restarts=0,
        cpu_percent=None,
        rss_bytes=None,
        received=lease.received,
        sent=lease.sent,
        lost=lease.lost,
        queued=lease.queued,
        refused=lease.refused,
        error=_blocked_text(state, lease, None, now),
        **_doing(lease, now),
    )


def _doing(lease: Lease | None, now: float) -> dict[str, Any]:
    """The fields of a row that only the worker's own process tells."""
    if lease is None:
        return {}
    handler = lease.handler
    return {
        "silent_s": _age(lease.beat or None, now),
        "handler": None if handler is None else HandlerStatus.of(handler, now),
        "children": tuple(_child_row(child, lease.ahead_s, now) for child in lease.children),
    }


def _child_row(child: ChildState, ahead_s: float, now: float) -> ChildRow:
    return ChildRow(
        name=child.name,
        depth=child.depth,
        active=child.active,
        uptime_s=_age(child.started_at - ahead_s if child.started_at else None, now),
        received=child.received,
        sent=child.sent,
        working=child.working,
    )


def _blocked_text(
    state: State, lease: Lease, process: ProcessRecord | None, now: float
) -> str | None:
    """The reason that a worker does not answer, and where to look; None where it does."""
    if state != "unresponsive":
        return None
    parts = [f"its event loop is blocked: no heartbeat for {now - lease.beat:.0f} s"]
    if process is not None and process.os_state == "stopped":
        parts.append("its process is stopped (SIGCONT lets it go on)")
    elif process is not None and process.cpu_percent is not None:
        parts.append(f"its process uses {process.cpu_percent:.0f} % of a core")
    if lease.handler is not None:
        parts.append(f"at the last one it was in {lease.handler}")
    return "; ".join(parts)


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since), 1)
