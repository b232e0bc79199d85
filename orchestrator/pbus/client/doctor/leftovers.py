"""Checks of what ended or killed projects left on this machine, and of those that run."""

from collections import Counter
from collections.abc import Iterable, Iterator

from pbus.client.doctor.findings import Finding, error, ok, warning
from pbus.client.doctor.machine import own_version
from pbus.process.project.discovery import (
    abandoned_sockets,
    orphaned_projects,
    running_projects,
)
from pbus.process.project.project import Project
from pbus.process.project.project_lock import processes_of
from pbus.process.project.record import ProjectRecord
from pbus.topology.model import Topology


def machine_leftovers() -> Iterator[Finding]:
    """Processes that no supervisor and no guard look after; stale locks and records go by the look."""
    orphans = orphaned_projects()
    for record in orphans:
        pids = sorted(process.pid for process in processes_of(Project.of_record(record)))
        yield error(
            "leftovers",
            f"the supervisor of {record.name!r} in {record.folder} was killed, and its guard too: left"
            f" are pids {', '.join(map(str, pids))}",
            f"`pbus down -f {record.file}` ends them, `pbus up` starts again",
        )
    sockets = abandoned_sockets()
    for folder in sockets:
        yield warning(
            "leftovers",
            f"{folder} has the sockets of a project that is over",
            f"the next `pbus up` of it removes them, or `rm -r {folder}`",
        )
    if not orphans and not sockets:
        yield ok("leftovers", "no process of a killed supervisor is left")


def running_here(topology: Topology | None) -> Iterator[Finding]:
    """The projects of this user: their versions, and whether two share a channel."""
    records = running_projects()
    for record in records:
        if record.version != own_version():
            yield warning(
                "versions",
                f"{record.name!r} (supervisor pid {record.pid}) runs with pbus {record.version}, this"
                f" is {own_version()}",
                f"restart it with this version: `pbus down -p {record.name}`, `pbus up`",
            )
    yield from shared_channels(records, topology)


def shared_channels(
    records: Iterable[ProjectRecord], topology: Topology | None
) -> Iterator[Finding]:
    """Projects of this machine that receive each other's messages.

    Args:
        records: The running ones.
        topology: Only what concerns it is told; None: everything.
    """
    found = {
        (record.bus.url, record.bus.channel, f"{record.name} ({record.file})")
        for record in records
        if record.bus.url is not None
    }
    places = {(url, channel) for url, channel, _ in found}
    if topology is not None:
        own = _own_place(topology)
        found |= own
        places = {(url, channel) for url, channel, _ in own}
    for url, channel in sorted(places):
        names = sorted(label for where, name, label in found if (where, name) == (url, channel))
        if len(names) > 1:
            yield _clash(names, channel)


def _own_place(topology: Topology) -> set[tuple[str, str, str]]:
    url = topology.bus.url
    label = f"{topology.name} ({topology.file})"
    return set() if url is None else {(url, topology.bus.channel, label)}


def _clash(names: Iterable[str], channel: str) -> Finding:
    return warning(
        "clashes",
        f"{' and '.join(names)} share the channel {channel} of one broker: they receive each"
        " other's messages, and a name can be used by one of them only",
        "give each a `bus.channel` of its own, unless this is meant",
    )


def repeated(names: Iterable[str]) -> list[str]:
    """The names that come more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)
