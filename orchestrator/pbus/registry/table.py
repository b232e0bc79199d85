"""The known workers: announcements and snapshots of the store merged.

Pure bookkeeping. Announcements are quick and may be late, lost or wrong; a snapshot is right as of its
reading. So each change carries a stamp, and a snapshot never reverts a change that came after it was
requested.
"""

import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, KeysView, Sequence
from typing import TypeVar

import msgspec

from pbus.leases import Lease, process_of
from pbus.messages import WorkerRegistryEntry
from pbus.names import group_of, replica_number
from pbus.registry.event_data import WorkerLostData, WorkerReadyData

K = TypeVar("K")
T = TypeVar("T")

LEASE_EXPIRED = "lease expired"
LEASE_MISSING = "its lease is missing"
LEASE_REMOVED = "its lease was removed"
NEVER_CONFIRMED = "announced, but not registered"
REPLACED = "replaced by a new incarnation"

_LATE_S = 10.0  # messages under a name may arrive so long after the announcement of its loss
_MAX_REMEMBERED = 1_000  # late announcements come within seconds


class WorkerJoined(msgspec.Struct, frozen=True):
    """A worker that became ready.

    Attributes:
        first: Whether no other replica of its group was ready.
    """

    data: WorkerReadyData
    first: bool = True


Change = WorkerJoined | WorkerLostData


class Member(msgspec.Struct):
    """One worker of the table.

    Attributes:
        stamp: Of the last announcement about it.
        announced: Whether watchers were called for its readiness.
        confirmed: Whether the store ever had it.
        missing_until: When it counts as lost unless its lease is back; None while the store has it.
    """

    entry: WorkerRegistryEntry
    data: WorkerReadyData
    stamp: int
    announced: bool = False
    confirmed: bool = False
    missing_until: float | None = None


def entry_of(lease: Lease, *, gone: str | None = None, unhandled: int = 0) -> WorkerRegistryEntry:
    """Make the announcement of a lease.

    Args:
        lease: The worker's.
        gone: The reason of its end; None while it is there.
        unhandled: The number of messages that were queued in it and are lost.
    """
    return WorkerRegistryEntry(
        name=lease.name,
        incarnation=lease.incarnation,
        runner=lease.runner,
        active=lease.active,
        ready=lease.state == "ready" and gone is None,
        started_at=lease.started_at,
        gone=gone,
        unhandled=unhandled,
    )


class MembershipTable:
    """The known workers by name, and replicas by group.

    Attributes:
        find: Returns the worker of a name, ready or not, or None. An attribute in place of a method
            saves a call for each message.
        version: Grows with each change.
        is_live: Whether it hears of changes as they happen.
        on_asked: Called where more must be known than a table that is not live does.
    """

    def __init__(self) -> None:
        self.version = 0
        self.is_live = True
        self.on_asked: Callable[[], object] = lambda: None
        self._members: dict[str, Member] = {}
        self.find = self._members.get
        self._groups: dict[str, dict[str, Member]] = {}
        self._tombstones: OrderedDict[str, int] = OrderedDict()  # stamps by incarnation
        self._processes: Counter[str] = Counter()  # the number of workers of each
        self._ended_processes: OrderedDict[str, None] = OrderedDict()
        self._former_holders: OrderedDict[tuple[str, str], float] = OrderedDict()  # name, process
        self._left_inactive: OrderedDict[str, None] = OrderedDict()
        self._next_stamp = itertools.count(1).__next__

    def stamp(self) -> int:
        """A new stamp, taken before a snapshot is requested."""
        return self._next_stamp()

    def ready_names(self) -> list[str]:
        """The names of all ready workers, sorted."""
        return sorted(name for name, member in self._members.items() if member.entry.ready)

    def groups(self) -> KeysView[str]:
        """The names of all groups with replicas, ready or not, as a live view."""
        return self._groups.keys()

    def replicas(self, group: str) -> list[Member]:
        """The ready replicas of a group, by number."""
        members = [member for member in self._groups.get(group, {}).values() if member.entry.ready]
        return sorted(members, key=lambda member: replica_number(member.entry.name))

    def is_inactive(self, name: str) -> bool:
        """Whether a worker of a name is inactive, or was when it left."""
        member = self._members.get(name)
        return name in self._left_inactive if member is None else not member.entry.active

    def is_over(self, process: str) -> bool:
        """Whether a process had workers, and the last one is gone."""
        return process in self._ended_processes

    def holder(self, name: str) -> str | None:
        """The process that has a worker of a name; None when there is none."""
        member = self._members.get(name)
        return None if member is None else process_of(member.entry.incarnation)

    def was_holder(self, name: str, process: str) -> bool:
        """Whether a process had a worker of a name until some seconds ago."""
        left_at = self._former_holders.get((name, process))
        return left_at is not None and time.monotonic() - left_at < _LATE_S

    def apply_announcement(
        self, entry: WorkerRegistryEntry, *, is_own: bool = False
    ) -> list[Change]:
        """Apply an announcement, unless the table has newer data.

        Args:
            entry: The announcement.
            is_own: Whether it is of this process, so that clocks do not matter.
        """
        member = self._members.get(entry.name)
        is_other = member is not None and member.entry.incarnation != entry.incarnation
        if entry.gone is not None:
            self._tombstone(entry.incarnation)
            return [] if member is None or is_other else self._remove(member, entry.gone)
        if not is_own and (
            entry.incarnation in self._tombstones
            or (member is not None and is_other and _is_older(entry, member.entry))
        ):
            return []
        changes = self._put(entry)
        self._members[entry.name].stamp = self._next_stamp()
        return changes

    def apply_snapshot(
        self,
        leases: Sequence[Lease],
        *,
        asked_at: int,
        lost_at: float,
        in_grace: bool = False,
    ) -> tuple[list[Change], bool]:
        """Apply a snapshot of all leases; as apply_reading().

        Returns:
            The changes, and True if newer data was kept, so that another snapshot is needed.
        """
        changes, stale = self.apply_reading(
            leases, None, asked_at=asked_at, lost_at=lost_at, in_grace=in_grace
        )
        return changes, bool(stale)

    def apply_reading(
        self,
        leases: Sequence[Lease],
        absent: Iterable[str] | None,
        *,
        asked_at: int,
        lost_at: float,
        in_grace: bool = False,
        is_noted: bool = False,
    ) -> tuple[list[Change], list[str]]:
        """Apply what was read from the store: all leases, or those that changed.

        Args:
            leases: Of the store.
            absent: Names that have none; None for all that `leases` does not have.
            asked_at: The stamp from before the reading was requested.
            lost_at: Until when missing workers may come back, by the clock of overdue().
            in_grace: Whether the store may have lost leases that it never returned.
            is_noted: Whether the store notes that it had those leases and removed them.

        Returns:
            The changes, and the names of which newer data was kept, so that they are to be read again.
        """
        changes: list[Change] = []
        stale = []
        for lease in leases:
            if self._has_news_since(asked_at, lease):
                stale.append(lease.name)
                continue
            self._tombstones.pop(lease.incarnation, None)
            changes += self._put(entry_of(lease))
            member = self._members[lease.name]
            member.confirmed, member.missing_until = True, None
        if absent is None:
            absent = self._members.keys() - {lease.name for lease in leases}
        for member in [self._members[name] for name in absent if name in self._members]:
            if member.stamp > asked_at:
                stale.append(member.entry.name)
            else:
                changes += self._mark_absent(member, lost_at, in_grace=in_grace, is_noted=is_noted)
        return changes, stale

    def _mark_absent(
        self, member: Member, lost_at: float, *, in_grace: bool, is_noted: bool
    ) -> list[Change]:
        if not in_grace and (is_noted or not member.confirmed):
            return self._remove(member, LEASE_REMOVED if member.confirmed else NEVER_CONFIRMED)
        if member.missing_until is None:
            member.missing_until = lost_at
        return []

    def mark_missing(self, entries: Iterable[WorkerRegistryEntry], lost_at: float) -> None:
        """Mark workers whose lease ran out during an outage; they may put it back until `lost_at`."""
        for entry in entries:
            member = self._members.get(entry.name)
            if member is not None and member.entry.incarnation == entry.incarnation:
                member.missing_until = lost_at

    def extend_grace(self, lost_at: float) -> None:
        """Give all missing workers more time: the store was unreachable."""
        for member in self._members.values():
            if member.missing_until is not None:
                member.missing_until = lost_at

    def overdue(self, now: float) -> list[WorkerRegistryEntry]:
        """Announcements of the loss of workers that were missing for too long.

        Args:
            now: Seconds.
        """
        return [
            msgspec.structs.replace(member.entry, ready=False, gone=LEASE_MISSING)
            for member in self._members.values()
            if member.missing_until is not None and member.missing_until <= now
        ]

    def _has_news_since(self, asked_at: int, lease: Lease) -> bool:
        if self._tombstones.get(lease.incarnation, 0) > asked_at:
            return True
        member = self._members.get(lease.name)
        return member is not None and member.stamp > asked_at

    def _put(self, entry: WorkerRegistryEntry) -> list[Change]:
        changes: list[Change] = []
        member = self._members.get(entry.name)
        if member is not None and member.entry.incarnation != entry.incarnation:
            changes += self._remove(member, REPLACED)
            self._tombstone(member.entry.incarnation)
            member = None
        data = WorkerReadyData(entry.name, entry.runner, entry.incarnation, entry.active)
        if member is None:
            member = self._add(Member(entry=entry, data=data, stamp=0))
            self.version += 1
        elif member.entry != entry:
            self.version += 1
        member.entry, member.data = entry, data
        if entry.ready and not member.announced:
            member.announced = True
            changes.append(WorkerJoined(data, first=self._is_first(member)))
        return changes

    def _add(self, member: Member) -> Member:
        name, process = member.entry.name, process_of(member.entry.incarnation)
        self._members[name] = member
        self._processes[process] += 1
        self._ended_processes.pop(process, None)
        self._left_inactive.pop(name, None)
        group = group_of(name)
        if group is not None:
            self._groups.setdefault(group, {})[name] = member
        return member

    def _remove(self, member: Member, reason: str) -> list[Change]:
        name, process = member.entry.name, process_of(member.entry.incarnation)
        del self._members[name]
        self.version += 1
        if not member.entry.active:
            _remember(self._left_inactive, name, None)
        _remember(self._former_holders, (name, process), time.monotonic())
        self._processes[process] -= 1
        if not self._processes[process]:
            del self._processes[process]
            _remember(self._ended_processes, process, None)
        group = group_of(name)
        if group is not None:
            del self._groups[group][name]
            if not self._groups[group]:
                del self._groups[group]
        if not member.announced:
            return []
        return [WorkerLostData(name, member.entry.runner, member.entry.incarnation, reason)]

    def _is_first(self, member: Member) -> bool:
        group = group_of(member.entry.name)
        if group is None:
            return True
        return not any(
            other.entry.ready for other in self._groups[group].values() if other is not member
        )

    def _tombstone(self, incarnation: str) -> None:
        _remember(self._tombstones, incarnation, self._next_stamp())


def _remember(among: OrderedDict[K, T], key: K, value: T) -> None:
    """Add an entry; the oldest one is removed beyond the limit."""
    among[key] = value
    among.move_to_end(key)
    if len(among) > _MAX_REMEMBERED:
        among.popitem(last=False)


def _is_older(entry: WorkerRegistryEntry, member: WorkerRegistryEntry) -> bool:
    return (
        entry.started_at is not None
        and member.started_at is not None
        and entry.started_at < member.started_at
    )
