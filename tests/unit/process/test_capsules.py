"""Crash capsules: their bounds, their files, and what a supervisor puts into them."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pbus.leases import Lease
from pbus.process.project.history import capsule_files
from pbus.process.project.history.capsule import (
    MAX_BYTES,
    Capsule,
    LogEntry,
    OpenWork,
    Sequel,
    Traffic,
    decode_capsule,
    encode_capsule,
)
from pbus.process.project.history.capsule_files import read_capsules, write_capsule
from pbus.process.project.history.traffic_history import KeptMessage
from pbus.process.project.log_files import LogFile
from pbus.process.project.project import Project
from pbus.process.supervisor.reports.capsules import CapsuleWriter
from pbus.process.supervisor.worker.end_facts import is_good_end
from pbus.process.supervisor.worker.ends import note_end, note_launch_error
from pbus.process.supervisor.worker.usage import Usage
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.supervisor_events import Event, Line, StateChanged
from pbus.running_handlers import RunningHandler
from pbus.stack_values import ProcessStacks, StackFrame, TaskStack, ThreadStack
from pbus.topology.model import WorkerInstance, WorkerSpec
from pbus.topology.policy.policies import StopSpec


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a state folder of its own."""
    found = Project("shop", tmp_path, tmp_path / "topology.yaml")
    found.state_dir = tmp_path / "state"
    return found


def capsule(**changes: object) -> Capsule:
    """A capsule with usual values."""
    usual = {
        "project": "shop", "run": 1, "session": "s", "worker": "a", "workers": ("a",), "pid": 7,
        "started": 10.0, "ready": None, "ended": 20.0, "start": 1, "reason": "exited with code 1",
        "code": 1, "signal": None, "is_told": False, "error": None, "sequel": Sequel("failed", ""),
    }  # fmt: skip
    return Capsule(**{**usual, **changes})  # type: ignore[arg-type]


def large_stacks(tasks: int, threads: int) -> ProcessStacks:
    """Stacks of many tasks and threads, about 1 KiB each."""
    frames = tuple(StackFrame("/x" * 20, n, "f" * 20) for n in range(10))
    return ProcessStacks(
        pid=7,
        threads=tuple(ThreadStack(name=f"t{n}", frames=frames) for n in range(threads)),
        tasks=tuple(
            TaskStack(name=f"k{n}", is_running=False, waits_for="", frames=frames)
            for n in range(tasks)
        ),
    )


MESSAGE = KeptMessage(time=1.0, id="i", type="T", source="b", target="a", size_bytes=9)
LARGE: dict[str, dict[str, Any]] = {
    "log": {"log": tuple(LogEntry(n, "out", "é" * 5_000) for n in range(500))},
    "tasks": {"stacks": large_stacks(2_000, 3)},
    "threads": {"stacks": large_stacks(0, 2_000)},
    "one thread": {
        "stacks": ProcessStacks(
            pid=7,
            threads=(ThreadStack(name="x" * 300_000, frames=()),),
            tasks=None,
        )
    },
    "traffic": {"traffic": Traffic(received=(MESSAGE,) * 5_000)},
    "workers": {"workers": tuple(f"worker-{n}" for n in range(50_000))},
    "texts": {"reason": "r" * 300_000, "error": "e" * 300_000},
    "fate": {"open": OpenWork(fate="f" * 300_000)},
    "detail": {"sequel": Sequel("failed", "d" * 300_000)},
}


@pytest.mark.parametrize("kind", LARGE)
def test_capsule_is_bounded_in_bytes(kind: str) -> None:
    """Whatever there is too much of, a capsule keeps to its limit and says what it left out."""
    large = capsule(**LARGE[kind])
    body = encode_capsule(large)
    assert len(body) <= MAX_BYTES
    found = decode_capsule(body)
    assert ("a", 20.0, 1) == (found.worker, found.ended, found.code)
    if kind == "log":
        assert 500 == len(found.log) + found.log_left_out
        assert large.log[-1].text[:1024] == found.log[-1].text
    if kind == "tasks":
        assert found.stacks is not None
        assert 2_000 == len(found.stacks.tasks or ()) + found.stacks.left_out
    if kind == "one thread":
        assert (None, "they are too large to be kept") == (found.stacks, found.stacks_error)


def test_small_capsule_is_kept_whole() -> None:
    """Nothing is left out that has room, and all fields come back."""
    whole = capsule(
        log=(LogEntry(11.0, "err", "bad"),),
        stacks=large_stacks(2, 2),
        traffic=Traffic(received=(MESSAGE,)),
        open=OpenWork(fate="f", beat=19.0, handlers={"a": RunningHandler(name="h")}),
    )
    assert whole == decode_capsule(encode_capsule(whole))


def test_newest_come_first_and_by_worker(project: Project) -> None:
    """Ends of one millisecond are kept apart; a group's name means its replicas."""
    ends = [("x.1", 5.0), ("y", 6.0), ("x.2", 7.0), ("x.2", 7.0)]
    for worker, at in ends:
        write_capsule(project, capsule(worker=worker, workers=(worker,), ended=at))
    assert ["x.2", "x.2", "y", "x.1"] == [one.worker for one in read_capsules(project)]
    assert ["x.2", "x.2", "x.1"] == [one.worker for one in read_capsules(project, "x")]
    assert ["y"] == [one.worker for one in read_capsules(project, "y")]
    assert [] == list(read_capsules(project, "z"))


def test_worker_of_any_name_and_time(project: Project) -> None:
    """Names that no file can have, a long one, and clocks that are wrong."""
    names = ("a/b", "..", "Ü ber", "x" * 255, "é" * 255)
    for worker in names:
        write_capsule(project, capsule(worker=worker, workers=(worker,)))
    assert {*names} == {one.worker for one in read_capsules(project)}
    for at in (-1.0, 1e300, 0.0):
        write_capsule(project, capsule(ended=at))
    assert {-1.0, 1e300, 0.0, 20.0} == {one.ended for one in read_capsules(project)}


def test_worker_in_a_crash_loop_keeps_those_of_others(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of a worker fall at its own limit, then those of all at the project's."""
    monkeypatch.setattr(capsule_files, "MAX_OF_WORKER", 3)
    monkeypatch.setattr(capsule_files, "MAX_OF_PROJECT", 5)
    write_capsule(project, capsule(worker="quiet", workers=("quiet",), ended=1.0))
    for n in range(8):
        write_capsule(project, capsule(ended=10.0 + n))
    assert [17.0, 16.0, 15.0, 1.0] == [one.ended for one in read_capsules(project)]
    for n in range(2):
        write_capsule(project, capsule(worker="b", workers=("b",), ended=30.0 + n))
    assert [31.0, 30.0, 17.0, 16.0, 15.0] == [one.ended for one in read_capsules(project)]


def test_capsules_are_bounded_in_bytes_together(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest is kept even where it alone is too large."""
    size = len(encode_capsule(capsule()))
    monkeypatch.setattr(capsule_files, "MAX_BYTES", 2 * size + 10)
    for n in range(4):
        write_capsule(project, capsule(ended=10.0 + n))
    assert [13.0, 12.0] == [one.ended for one in read_capsules(project)]
    monkeypatch.setattr(capsule_files, "MAX_BYTES", 1)
    write_capsule(project, capsule(ended=20.0))
    assert [20.0] == [one.ended for one in read_capsules(project)]


def test_damaged_and_foreign_files_are_told(project: Project) -> None:
    """What is no capsule is named with its reason and left out; other files are left alone."""
    write_capsule(project, capsule())
    folder = project.state_dir / capsule_files.FOLDER
    cut = encode_capsule(capsule())[:-20]
    for number, content in enumerate((b"", cut, b"[]", b"\xff\xfe", b"[" * 100_000, b"null")):
        (folder / f"{number:013d}-a.json").write_bytes(content)
    os.mkfifo(folder / "0000000000100-a.json")
    (folder / "0000000000101-a.json").mkdir()
    (folder / "note.json").write_text("{}")
    (folder / "0000000000102-a.new").write_text("half")
    damaged: list[str] = []
    found = list(read_capsules(project, on_damage=lambda path, why: damaged.append(path.name)))
    assert [20.0] == [one.ended for one in found]
    assert [101, 100, 5, 4, 3, 2, 1, 0] == [int(name.partition("-")[0]) for name in damaged]
    for n in range(12):  # and more of them than are kept do not stop what comes
        write_capsule(project, capsule(ended=30.0 + n))
    assert 10 == len(list(read_capsules(project)))
    assert (folder / "note.json").exists()


def test_fields_of_a_later_version_are_no_damage(project: Project) -> None:
    """A newer pbus may have written more."""
    path = write_capsule(project, capsule())
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "more": {"x": 1}}))
    assert [capsule()] == list(read_capsules(project))


def test_no_folder_is_no_capsule(project: Project) -> None:
    """Before the first end with an error there is nothing to read."""
    assert [] == list(read_capsules(project))


SPEC = WorkerSpec(name="w", working_dir=Path("/"), joins=True)


@pytest.mark.parametrize(
    ("code", "is_told", "expected"),
    [
        (0, False, True), (1, False, False), (-15, False, False), (-9, False, False),
        (0, True, True), (-15, True, True), (143, True, True), (-2, True, True), (130, True, True),
        (1, True, False), (-9, True, False), (137, True, False), (-11, True, False),
    ],
)  # fmt: skip
def test_good_ends(code: int, is_told: bool, expected: bool) -> None:
    """A signal that a command sent is a good end, unless it had to be SIGKILL."""
    assert expected == is_good_end(SPEC, code, is_told=is_told)


def test_good_end_by_the_own_signal_of_a_worker() -> None:
    """The signal of `stop` ends a worker well when it was told to end."""
    spec = msgspec.structs.replace(SPEC, stop=StopSpec(signal="SIGQUIT"))
    assert is_good_end(spec, -3, is_told=True)
    assert not is_good_end(SPEC, -3, is_told=True)


class Shop:
    """A worker's status and the writer of its capsules."""

    def __init__(self, project: Project, **spec: Any) -> None:
        self.project = project
        instance = WorkerInstance(name="w", spec=msgspec.structs.replace(SPEC, **spec))
        self.status = WorkerStatus(instance, time.monotonic)
        self.process = SimpleNamespace(name="w", names=("w", "x"), status=self.status)
        run = SimpleNamespace(number=4, session="s4")
        self.asked: list[tuple[str, ...]] = []
        self.writer = CapsuleWriter(project, run, self.find, self.traffic_of)  # type: ignore[arg-type]
        self.status.emit = self.emit

    def find(self, worker: str) -> Any:
        return self.process if worker == "w" else None

    def traffic_of(self, names: tuple[str, ...]) -> Traffic:
        self.asked.append(names)
        return Traffic(received=(MESSAGE,))

    def emit(self, event: Event) -> None:
        if isinstance(event, Line):
            with LogFile(self.project.log_path("w")) as file:
                file.write(event.time, event.stream, event.text)
        self.writer.on_event(event)

    def run_process(self, code: int, **child: Any) -> Any:
        """Have a process begin that has ended already."""
        usual = {"pid": 7, "incarnation": "i", "started_at": time.time(), "code": code}
        ended = SimpleNamespace(**{**usual, **child})
        self.status.begin_start()
        self.status.child = ended
        return ended

    def kept(self) -> list[Capsule]:
        return list(read_capsules(self.project))


def test_capsule_has_all_that_is_known(project: Project) -> None:
    """Work that was open, usage, log, stacks, messages, and the state that followed."""
    shop = Shop(project)
    with LogFile(project.log_path("w")) as file:
        file.write(1000.0, "out", "of an earlier process")
    child = shop.run_process(3)
    shop.status.set_ready()
    shop.status.on_line("err", "ValueError: bad")
    shop.status.on_lease(
        Lease(
            name="w", incarnation="i.1", runner="r", host="h", pid=7, beat=time.time(), queued=2,
            working=1, handler=RunningHandler(name="on_bus_message", since=time.time()),
        ),
        time.time(),
    )  # fmt: skip
    shop.status.on_lease(
        Lease(name="x", incarnation="i.2", runner="r", host="h", pid=7, queued=5), time.time()
    )
    shop.status.facts.add_usage(Usage(50.0, 1000))
    shop.status.facts.add_usage(Usage(70.0, 2000))
    shop.status.facts.stacks = large_stacks(1, 1)
    shop.status.open_messages = "1 message in flight requeued"
    shop.status.child, shop.status.code = None, 3
    note_end(shop.status, child, "exited with code 3")
    assert [] == shop.kept()
    shop.status.enter_trouble("backoff", "exited with code 3", "restarts in 1 s")

    (found,) = shop.kept()
    assert ("shop", 4, "s4", "w", ("w", "x")) == (
        found.project, found.run, found.session, found.worker, found.workers,
    )  # fmt: skip
    assert (7, 1, 3, None, "ValueError: bad") == (
        found.pid, found.start, found.code, found.signal, found.error,
    )  # fmt: skip
    assert found.started is not None
    assert found.ready is not None
    assert found.started <= found.ready <= found.ended
    assert Sequel("backoff", "exited with code 3: ValueError: bad, restarts in 1 s") == found.sequel
    assert ("1 message in flight requeued", 7, 1, ["w"]) == (
        found.open.fate, found.open.queued, found.open.working, [*found.open.handlers],
    )  # fmt: skip
    assert [(50.0, 1000), (70.0, 2000)] == [(one.cpu_percent, one.rss_bytes) for one in found.usage]
    assert [("err", "ValueError: bad")] == [(one.stream, one.text) for one in found.log]
    assert large_stacks(1, 1) == found.stacks
    assert Traffic(received=(MESSAGE,)) == found.traffic
    assert [("w", "x")] == shop.asked

    shop.status.enter("backoff", "another detail")  # is no further end
    assert [found] == shop.kept()


def test_next_process_has_nothing_of_the_one_before(project: Project) -> None:
    """A killed process after one that hung: usage and stacks are its own."""
    shop = Shop(project)
    child = shop.run_process(-9)
    shop.status.set_ready()
    shop.status.facts.stacks = "no answer"
    shop.status.facts.add_usage(Usage(1.0, 1))
    note_end(shop.status, child, "hung")
    note_end(shop.status, shop.run_process(-11), "was killed by SIGSEGV")
    shop.status.child = None
    shop.status.fail("was killed by SIGSEGV")
    second, first = shop.kept()
    assert ("SIGKILL", None, "no answer", 1, "starting") == (
        first.signal, first.code, first.stacks_error, len(first.usage), first.sequel.state,
    )  # fmt: skip
    assert ("SIGSEGV", None, None, 0, "failed", 2) == (
        second.signal, second.code, second.stacks_error, len(second.usage), second.sequel.state,
        second.start,
    )  # fmt: skip


def test_program_that_cannot_be_started(project: Project) -> None:
    """There is no process, and the log is that of the worker."""
    shop = Shop(project)
    shop.status.begin_start()
    shop.status.note("cannot be started: No such file", is_error=True)
    note_launch_error(shop.status, "cannot be started: No such file")
    shop.status.fail("cannot be started: No such file")
    (found,) = shop.kept()
    assert (None, None, None, None, None) == (
        found.pid, found.started, found.code, found.signal, found.error,
    )  # fmt: skip
    assert ["cannot be started: No such file"] == [line.text for line in found.log]


@pytest.mark.parametrize(("code", "is_told"), [(0, False), (-15, True), (0, True)])
def test_good_end_leaves_no_capsule(project: Project, code: int, is_told: bool) -> None:
    """Neither success nor a stop that was asked for is an error."""
    shop = Shop(project)
    note_end(shop.status, shop.run_process(code), "ended", is_told=is_told)
    shop.status.enter("exited", "ended")
    assert [] == shop.kept()


def test_verdict_on_a_process_that_ended_well_is_an_error(project: Project) -> None:
    """An unhealthy worker that was ended for it, and exits with 0."""
    shop = Shop(project)
    note_end(shop.status, shop.run_process(0), "unhealthy", is_failure=True)
    shop.status.enter("backoff", "unhealthy")
    assert [0] == [one.code for one in shop.kept()]


def test_full_disk_costs_the_capsule_only(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """A file in the place of the folder is told once, until it is gone."""
    shop = Shop(project)
    project.state_dir.mkdir()
    (project.state_dir / capsule_files.FOLDER).write_text("odd")
    for _ in range(2):
        note_end(shop.status, shop.run_process(1), "bad")
        shop.status.enter("failed", "bad")
    assert 1 == caplog.text.count("the crash capsule of 'w' cannot be kept")
    (project.state_dir / capsule_files.FOLDER).unlink()
    note_end(shop.status, shop.run_process(1), "bad")
    shop.status.enter("failed", "bad")
    assert 1 == len(shop.kept())


def test_log_that_cannot_be_read_is_told_in_the_capsule(project: Project) -> None:
    """The capsule is written all the same."""
    shop = Shop(project)
    project.log_path("w").parent.parent.mkdir(parents=True)
    project.log_path("w").parent.symlink_to(project.log_path("w").parent)  # a link to itself
    note_end(shop.status, shop.run_process(1), "bad")
    shop.status.enter("failed", "bad")
    assert ["its log cannot be read"] == [
        line.text.partition(":")[0] for one in shop.kept() for line in one.log
    ]


def test_only_changes_of_state_of_known_workers_count(project: Project) -> None:
    """Other events, and a worker that was taken out meanwhile, are no ends."""
    shop = Shop(project)
    note_end(shop.status, shop.run_process(1), "bad")
    shop.writer.on_event(Line("w", "out", "text", 1.0))
    shop.writer.on_event(StateChanged("gone", "failed", ""))
    assert [] == shop.kept()
