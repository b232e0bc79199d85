"""What a supervisor does for each of very many processes: no search through all, no measuring of all at once."""

from pbus.messages import WorkerRegistryEntry
from pbus.process.supervisor.reports.stop_reports import StopReports
from pbus.process.supervisor.worker import usage
from pbus.process.supervisor.worker.usage import Usage, UsageMeter


class System:
    """Processes that note when they are measured; those that are gone have no usage."""

    def __init__(self, monkeypatch, most):
        self.measured = []
        self.gone = set()
        monkeypatch.setattr(usage, "MOST_AT_ONCE", most)
        monkeypatch.setattr(usage, "_find", lambda pid: pid)
        monkeypatch.setattr(usage, "_usage", self._measure)

    def _measure(self, pid):
        self.measured.append(pid)
        return None if pid in self.gone else Usage(len(self.measured), 1)

    def taken(self):
        measured, self.measured = self.measured, []
        return measured


def test_few_processes_are_measured_each_time(monkeypatch):
    """As many as fit are all measured, and only those that run are told."""
    system, meter = System(monkeypatch, 3), UsageMeter()
    assert {1, 2, 3} == set(meter.measure([1, 2, 3]))
    system.gone.add(2)
    assert {1, 3} == set(meter.measure([1, 2, 3]))
    assert [1, 2, 3, 1, 2, 3] == system.taken()
    assert {3} == set(meter.measure([3]))


def test_many_processes_are_measured_in_turn(monkeypatch):
    """New ones first, then those that were measured longest ago; the others keep what they had."""
    system, meter = System(monkeypatch, 2), UsageMeter()
    pids = [1, 2, 3, 4, 5]
    assert [{1, 2}, {1, 2, 3, 4}, set(pids)] == [set(meter.measure(pids)) for _ in range(3)]
    assert [1, 2, 3, 4, 5, 1] == system.taken()
    before = meter.measure(pids)
    assert [2, 3] == system.taken()
    after = meter.measure([6, *pids])
    assert [6, 4] == system.taken()
    assert [pid for pid in pids if before[pid] != after[pid]] == [4]
    system.gone.update(pids)
    for _ in range(4):
        told = meter.measure([6, *pids])
    assert {6} == set(told)


def test_processes_that_left_are_forgotten(monkeypatch):
    """A pid that comes again is another process: it is looked for again, and measured first."""
    system, meter = System(monkeypatch, 1), UsageMeter()
    meter.measure([1, 2])
    meter.measure([1, 2])
    assert {2} == set(meter.measure([2]))
    system.taken()
    meter.measure([1, 2])
    assert [1] == system.taken()


class Counted(str):
    """An incarnation that counts the searches for it."""

    __slots__ = ()
    searches = 0

    def startswith(self, *args):
        Counted.searches += 1
        return super().startswith(*args)


def entry(incarnation, **fields):
    """The announcement of a worker."""
    return WorkerRegistryEntry(name="w", incarnation=incarnation, runner="r", **fields)


def test_reports_are_found_without_a_search():
    """Of many processes the one of an announcement is looked up; those of other forms are searched for."""
    reports = StopReports()
    for number in range(100):
        reports.add(f"p-{number}")
    reports.on_announcement(entry(Counted("p-7-abc.000001"), gone="ended", unhandled=3))
    assert 0 == Counted.searches
    reports.on_announcement(entry(Counted("p-8.000001"), gone="ended", unhandled=2))
    assert 0 < Counted.searches
    reports.on_announcement(entry("q-1-abc.000001", gone="ended", unhandled=9))
    assert [0, 3, 2, 0] == [reports.remove(f"p-{number}") for number in (6, 7, 8, 7)]
