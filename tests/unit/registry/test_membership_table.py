"""The registry's bookkeeping: which news counts, and what watchers are told."""

from pbus.leases import Lease
from pbus.messages import WorkerRegistryEntry
from pbus.registry.event_data import WorkerLostData, WorkerReadyData
from pbus.registry.table import (
    LEASE_MISSING,
    NEVER_CONFIRMED,
    REPLACED,
    MembershipTable,
    WorkerJoined,
    entry_of,
)


def entry(name="w", incarnation="p.1", **fields):
    return WorkerRegistryEntry(name=name, incarnation=incarnation, runner="r", **fields)


def lease(name="w", incarnation="p.1", state="ready", **fields):
    return Lease(
        name=name, incarnation=incarnation, runner="r", host="h", pid=1, state=state, **fields
    )


def arrival(name="w", incarnation="p.1", first=True, active=True):
    return WorkerJoined(WorkerReadyData(name, "r", incarnation, active), first=first)


def lost(name="w", incarnation="p.1", reason="why"):
    return WorkerLostData(name, "r", incarnation, reason)


def read(table, *leases, lost_at=100.0):
    return table.apply_snapshot(leases, asked_at=table.stamp(), lost_at=lost_at)


def test_ready_worker_arrives_once():
    """The same announcement, heard twice and then read, is one arrival."""
    table = MembershipTable()
    assert [arrival()] == table.apply_announcement(entry())
    assert [] == table.apply_announcement(entry())
    assert ([], False) == read(table, lease())


def test_starting_worker_is_unknown():
    """A worker that is registered but not ready is no arrival and no loss."""
    table = MembershipTable()
    assert ([], False) == read(table, lease(state="starting"))
    assert [] == table.ready_names()
    assert [] == table.apply_announcement(entry(gone="crashed"))


def test_gone_names_its_incarnation():
    """Late news about an earlier incarnation does not remove its successor."""
    table = MembershipTable()
    table.apply_announcement(entry(incarnation="p.2"))
    assert [] == table.apply_announcement(entry(incarnation="p.1", gone="why"))
    assert ["w"] == table.ready_names()
    assert [lost(incarnation="p.2")] == table.apply_announcement(
        entry(incarnation="p.2", gone="why")
    )


def test_late_announcement_resurrects_none():
    """An announcement of an incarnation that is known to be over is passed over."""
    table = MembershipTable()
    table.apply_announcement(entry())
    table.apply_announcement(entry(gone="why"))
    assert [] == table.apply_announcement(entry())
    assert [] == table.ready_names()


def test_older_announcement_replaces_none():
    """An announcement of an incarnation that began before the one known is passed over."""
    table = MembershipTable()
    table.apply_announcement(entry(incarnation="p.2", started_at=2.0))
    assert [] == table.apply_announcement(entry(incarnation="p.1", started_at=1.0))
    assert "p.2" == table.find("w").entry.incarnation


def test_successor_replaces_predecessor():
    """A new incarnation that comes before the news of the old one's end tells both."""
    table = MembershipTable()
    table.apply_announcement(entry(incarnation="p.1"))
    assert [
        lost(incarnation="p.1", reason=REPLACED),
        arrival(incarnation="p.2"),
    ] == table.apply_announcement(entry(incarnation="p.2"))
    assert [] == table.apply_announcement(entry(incarnation="p.1", gone="why"))


def test_own_word_beats_clocks():
    """What this process says of itself counts, even if another host's clock is ahead."""
    table = MembershipTable()
    table.apply_announcement(entry(incarnation="other", started_at=9.0))
    changes = table.apply_announcement(entry(incarnation="p.1", started_at=1.0), is_own=True)
    assert [lost(incarnation="other", reason=REPLACED), arrival(incarnation="p.1")] == changes


def test_forged_announcement_is_dropped():
    """A worker that was announced, but that the store does not have, goes at the next reading."""
    table = MembershipTable()
    table.apply_announcement(entry())
    assert ([lost(reason=NEVER_CONFIRMED)], False) == read(table)


def test_reading_respects_later_news():
    """A reading asked for before an announcement came does not undo it, and another is due."""
    table = MembershipTable()
    asked_at = table.stamp()
    table.apply_announcement(entry())
    assert ([], True) == table.apply_snapshot([], asked_at=asked_at, lost_at=0.0)
    assert ["w"] == table.ready_names()


def test_reading_respects_later_end():
    """A reading asked for before a worker left does not bring it back."""
    table = MembershipTable()
    table.apply_announcement(entry())
    asked_at = table.stamp()
    table.apply_announcement(entry(gone="why"))
    assert ([], True) == table.apply_snapshot([lease()], asked_at=asked_at, lost_at=0.0)
    assert [] == table.ready_names()


def test_reading_brings_back():
    """A worker that was declared lost and renewed its lease after all is there again."""
    table = MembershipTable()
    table.apply_announcement(entry())
    table.apply_announcement(entry(gone="why"))
    assert ([arrival()], False) == read(table, lease())


def test_missing_worker_gets_time():
    """A worker that disappears from the store without a word is overdue only after its grace."""
    table = MembershipTable()
    read(table, lease())
    assert ([], False) == read(table, lost_at=5.0)
    assert [] == table.overdue(4.9)
    assert [entry(ready=False, gone=LEASE_MISSING, started_at=0.0)] == table.overdue(5.0)


def test_missing_worker_comes_back():
    """A worker that puts its lease back in time was never away."""
    table = MembershipTable()
    read(table, lease())
    read(table, lost_at=5.0)
    assert ([], False) == read(table, lease())
    assert [] == table.overdue(99.0)


def test_excuse_extends_grace():
    """After an outage those who are missing get their time again."""
    table = MembershipTable()
    read(table, lease())
    read(table, lost_at=5.0)
    table.extend_grace(20.0)
    assert [] == table.overdue(19.0)
    assert ["w"] == [each.name for each in table.overdue(20.0)]


def test_expired_may_be_missing():
    """A lease that ran out while none could be renewed counts as missing, for that incarnation only."""
    table = MembershipTable()
    read(table, lease())
    table.mark_missing([entry(incarnation="another"), entry()], 7.0)
    assert ["p.1"] == [each.incarnation for each in table.overdue(7.0)]


def test_stopping_is_not_lost():
    """A worker that takes no new work is not ready, and lost only when it is gone."""
    table = MembershipTable()
    table.apply_announcement(entry())
    assert [] == table.apply_announcement(entry(ready=False))
    assert [] == table.ready_names()
    assert [lost()] == table.apply_announcement(entry(gone="why"))


def test_replicas_by_number():
    """The replicas of a group are its ready members in order of their numbers."""
    table = MembershipTable()
    for number in (10, 2, 1):
        table.apply_announcement(entry(f"x.{number}", f"p.{number}"))
    table.apply_announcement(entry("x.3", "p.3", ready=False))
    assert ["x.1", "x.2", "x.10"] == [known.entry.name for known in table.replicas("x")]
    assert [] == table.replicas("y")


def test_first_replica_is_told():
    """The first ready replica of a group is marked, and again after none was ready."""
    table = MembershipTable()
    assert [arrival("x.1", "p.1")] == table.apply_announcement(entry("x.1", "p.1"))
    assert [arrival("x.2", "p.2", first=False)] == table.apply_announcement(entry("x.2", "p.2"))
    for number in (1, 2):
        table.apply_announcement(entry(f"x.{number}", f"p.{number}", gone="why"))
    assert [arrival("x.2", "p.3")] == table.apply_announcement(entry("x.2", "p.3"))


def test_memory_of_gone_is_bounded():
    """However many workers come and go, what is remembered of them has a limit."""
    table = MembershipTable()
    for number in range(1_500):
        table.apply_announcement(entry(f"w{number}", f"p.{number}"))
        table.apply_announcement(entry(f"w{number}", f"p.{number}", gone="why"))
    assert 1_000 == len(table._tombstones)
    assert {} == table._members


def test_entry_follows_lease():
    """An announcement says of a worker what its lease says."""
    held = lease(active=False, started_at=3.0)
    assert entry(active=False, started_at=3.0) == entry_of(held)
    assert entry(active=False, ready=False, gone="why", started_at=3.0) == entry_of(
        held, gone="why"
    )
