"""Checks of what supervisors, workers and queues of a channel say of themselves; pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from pbus.bus.queues.store import QueueStats
from pbus.client.doctor.findings import Finding, error, ok, warning
from pbus.client.doctor.leftovers import repeated
from pbus.leases import Lease
from pbus.names import with_groups
from pbus.observe import HostRecord, ProcessRecord, merge_rows, moved_clocks, refused_strangers
from pbus.topology.model import Topology

_OF_NO_WORKER: Final = ("cli-", "runner-", "supervisor-", "~")
_AHEAD_S: Final = 2.0
_SEALED_S: Final = 300.0  # sealed messages that are older are refused
_SHOWN: Final = 5


def channel_findings(
    leases: Sequence[Lease],
    hosts: Sequence[HostRecord],
    queues: Mapping[str, QueueStats] | None,
    topology: Topology | None,
    now: float,
) -> Iterator[Finding]:
    """All checks of a channel.

    Args:
        leases: Of its workers.
        hosts: Its supervisors.
        queues: What it stores; None where it stores nothing.
        topology: As it is in its file now; None where that cannot be read.
        now: Unix seconds.
    """
    yield from _clashes(leases, hosts)
    yield from _workers(leases, hosts, now)
    yield from clocks(leases, has_key=topology is not None and topology.bus.key is not None)
    for text in refused_strangers(leases):
        yield warning(
            "key", text, "find who writes to the channel: another program, or one with an old key"
        )
    if queues is not None:
        yield from _queues(leases, hosts, queues, topology)


def _clashes(leases: Sequence[Lease], hosts: Sequence[HostRecord]) -> Iterator[Finding]:
    projects = sorted({host.project for host in hosts})
    if len(projects) > 1:
        yield warning(
            "clashes",
            f"the projects {', '.join(projects)} share this channel: they receive each other's messages",
            "give each a `bus.channel` of its own, unless this is meant",
        )
    for name in repeated(process.name for host in hosts for process in host.processes):
        where = ", ".join(
            f"{host.host} (supervisor pid {host.pid})"
            for host in hosts
            if any(process.name == name for process in host.processes)
        )
        yield error(
            "clashes",
            f"{name} is run by several supervisors, on {where}: only one process can have the name",
            "start it on one host only (`--only`), give the others another name or channel, or use"
            " `replicas`",
        )
    for name, holder in _usurped(leases, hosts):
        yield error(
            "clashes",
            f"the name {name} is held by another process ({holder.host}, pid {holder.pid}), so that"
            " the supervised one cannot register",
            "end the other process; its name is free at most 6 s later",
        )


def _usurped(leases: Sequence[Lease], hosts: Sequence[HostRecord]) -> Iterator[tuple[str, Lease]]:
    by_name = {lease.name: lease for lease in leases}
    processes = [process for host in hosts for process in host.processes]
    known = tuple(process.incarnation for process in processes if process.incarnation)
    for process in processes:
        lease = by_name.get(process.name) if _is_wanted(process) else None
        if lease and not lease.incarnation.startswith(known):
            yield process.name, lease


def _is_wanted(process: ProcessRecord) -> bool:
    return process.joins and process.state != "exited"


def _workers(leases: Sequence[Lease], hosts: Sequence[HostRecord], now: float) -> Iterator[Finding]:
    rows = merge_rows(leases, hosts, now)
    for row in rows:
        if row.state == "failed":
            yield error(
                "workers", f"{row.name} has failed: {row.error or 'see its log'}",
                f"`pbus logs {row.name}` has the rest, `pbus start {row.name}` tries again",
            )  # fmt: skip
        elif row.state in {"unresponsive", "backoff"}:
            why = f": {row.error}" if row.error else ""
            yield warning(
                "workers", f"{row.name} is {row.state}{why}", f"see `pbus logs {row.name}`"
            )
    lost = sum(row.lost for row in rows)
    if lost:
        yield warning(
            "workers", f"{lost:,} messages were lost on their way",
            "`pbus ps` tells whose; `bus.delivery: at-least-once` loses none",
        )  # fmt: skip
    ready = sum(row.ready for row in rows)
    yield ok("workers", f"{ready} of {len(rows)} are ready")


def clocks(leases: Sequence[Lease], *, has_key: bool) -> Iterator[Finding]:
    """Hosts whose clocks differ from this one's."""
    texts = moved_clocks(leases)
    for host, text in texts.items():
        ahead_s = max(abs(lease.ahead_s) for lease in leases if lease.host == host)
        if has_key and ahead_s >= _SEALED_S:
            yield error("clocks", f"{text}; messages with a key are refused", _SYNC)
        else:
            yield warning("clocks", text, _SYNC)
    if leases and not texts:
        count = len({lease.host for lease in leases})
        yield ok("clocks", f"hosts with workers: {count}; no clock differs from this one's")


_SYNC: Final = "have both hosts set their clocks by NTP (chrony, systemd-timesyncd)"


def broker_clock(ahead_s: float, *, has_key: bool) -> Iterator[Finding]:
    """A broker whose clock differs from this one's."""
    if abs(ahead_s) < _AHEAD_S:
        return
    how = "ahead of" if ahead_s > 0 else "behind"
    text = f"the broker's clock is {abs(ahead_s):,.0f} s {how} this one's"
    if has_key and abs(ahead_s) >= _SEALED_S:
        yield error(
            "clocks", f"{text}; processes with such clocks refuse each other's messages", _SYNC
        )
    else:
        yield warning("clocks", f"{text}: pbus goes by the broker's", _SYNC)


def _queues(
    leases: Sequence[Lease],
    hosts: Sequence[HostRecord],
    queues: Mapping[str, QueueStats],
    topology: Topology | None,
) -> Iterator[Finding]:
    dead = {name: one.dead for name, one in queues.items() if one.dead}
    if dead:
        yield warning(
            "queues",
            f"{sum(dead.values()):,} messages were given up (dead letters) of {_some(dead)}",
            "`pbus dlq ls` tells why, `pbus dlq requeue` tries again, `pbus dlq drop` removes them",
        )
    if topology is None:
        return
    live = with_groups(lease.name for lease in leases)
    live |= with_groups(process.name for host in hosts for process in host.processes)
    strange = _unknown(queues, live | set(topology.queues()))
    for name in strange:
        yield warning(
            "leftovers",
            f"the queue of {name} holds {queues[name].backlog:,} messages, and no worker of that name"
            " is declared or runs",
            f"`pbus purge {name}` drops them, or declare the worker again",
        )
    if not strange:
        yield ok("queues", f"{len(queues)} queues, each of a worker that is known")


def _unknown(queues: Iterable[str], known: set[str]) -> list[str]:
    return [name for name in queues if name not in known and not name.startswith(_OF_NO_WORKER)]


def _some(names: Mapping[str, int]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} others" if len(names) > _SHOWN else shown
