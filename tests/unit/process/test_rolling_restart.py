"""Rolling restarts of workers that are only objects: who is replaced when, and what a failure leaves."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pbus.names import replica_name
from pbus.process.supervisor.changes.rolling import Rolling
from pbus.settings import BusSettings
from pbus.topology.model import Topology, WorkerInstance, WorkerSpec
from support.waiting import run


def spec(name: str, replicas: int | None) -> WorkerSpec:
    """A program."""
    return WorkerSpec(
        name=name, working_dir=Path("/"), joins=False, command=("run",), replicas=replicas
    )


class FakeWorker:
    """A worker that becomes ready when it is started, unless it is one that fails."""

    def __init__(self, project: "Project", instance: WorkerInstance) -> None:
        self.name = instance.name
        self.next_instance = instance
        self.names = (instance.name,)
        self.is_running = True
        self.target = SimpleNamespace(
            is_final=False, is_stopped_by_user=False, may_run=True, is_rolling=False
        )
        self.status = SimpleNamespace(
            state="ready",
            start_count=1,
            open_messages="",
            record=lambda: SimpleNamespace(trouble="no room"),
        )
        self._project = project

    @property
    def target_start_count(self) -> int:
        return self.status.start_count

    def replace(self, reason: str) -> None:
        self._project.told.append(f"{self.name}: {reason}")
        self.restart()

    def restart(self, timeout_s: float | None = None) -> None:
        given = f" {timeout_s:g}" if timeout_s else ""
        alone = "" if self.target.is_rolling else " alone"
        self._project.told.append(f"restart {self.name}{given}{alone}")
        self.status.start_count += 1
        self.status.state = "starting"
        self._project.later(self._come_up)

    def _come_up(self) -> None:
        self.status.state = "failed" if self.name in self._project.failing else "ready"


class Workers(dict[str, FakeWorker]):
    """As the set of workers: iteration gives the workers."""

    def __iter__(self) -> Any:
        return iter(list(self.values()))


class Project:
    """The workers, and what stands for membership and order."""

    def __init__(self, *specs: WorkerSpec, failing: Iterable[str] = ()) -> None:
        self.specs = {one.name: one for one in specs}
        self.failing = set(failing)
        self.told: list[str] = []
        self.workers = Workers({
            one.name: FakeWorker(self, one) for each in specs for one in each.instances()
        })
        fake: Any = self
        self.topology = Topology(
            name="t", file=Path("/t"), folder=Path("/"), bus=BusSettings(), workers=self.specs
        )
        self.rolling = Rolling(fake.workers, fake, fake, lambda: self.topology, lambda: None)
        self._tasks: list[asyncio.Task[None]] = []

    def later(self, act: Callable[[], None]) -> None:
        def do() -> None:
            act()
            self.rolling.notify()

        asyncio.get_running_loop().call_soon(do)

    # The membership and the order

    def add(self, instance: WorkerInstance) -> FakeWorker:
        self.told.append(f"add {instance.name}")
        worker = self.workers[instance.name] = FakeWorker(self, instance)
        worker.status.state = "starting"
        self.later(worker._come_up)
        return worker

    def take_out(self, names: list[str]) -> None:
        for name in names:
            self.told.append(f"remove {name}")
            worker = self.workers.pop(name)
            worker.target.is_final, worker.is_running = True, False
        self.later(lambda: None)

    def spawn(self, work: Coroutine[Any, Any, None], _name: str) -> None:
        self._tasks.append(asyncio.create_task(work))

    def sorted_groups(self, names: Iterable[str]) -> list[str]:
        return sorted(names)

    async def roll(self, *names: str, **options: Any) -> dict[str, tuple[str, str]]:
        """Roll to the end; returns the outcomes."""
        made = self.rolling.start(names, **options)
        await asyncio.wait_for(asyncio.gather(*self._tasks), 10)
        assert set() == self.rolling.groups
        return made.outcomes


def rolled(make: Callable[[], Awaitable[Any]]) -> Any:
    """Run it in a loop of its own."""
    return run(make())


def test_one_more_stands_in():
    """The next number is ready first, leaves last, and each keeps its name."""

    async def main() -> None:
        project = Project(spec("s", 3))
        outcomes = await project.roll("s.1", "s.2", "s.3", timeout_s=5.0)
        assert {"s.1", "s.2", "s.3"} == outcomes.keys()
        assert {("done", "")} == set(outcomes.values())
        assert [
            "add s.4", "restart s.1 5", "restart s.2 5", "restart s.3 5", "remove s.4",
        ] == project.told  # fmt: skip
        assert ["s.1", "s.2", "s.3"] == [one.name for one in project.workers]
        assert not any(one.target.is_rolling for one in project.workers.values())

    rolled(main)


def test_groups_follow_each_other():
    """A worker without replicas is restarted in place; each group has a stand-in of its own."""

    async def main() -> None:
        project = Project(spec("b", 1), spec("a", None))
        outcomes = await project.roll("b.1", "a")
        assert ["restart a alone", "add b.2", "restart b.1", "remove b.2"] == project.told
        assert "in place, since it has no replicas" == outcomes["a"][1]

    rolled(main)


@pytest.mark.parametrize("failing", ["s.3", "s.1"])
def test_failure_stops_it(failing: str):
    """Where the next one fails none is touched; where a later one does, the stand-in stays."""

    async def main() -> None:
        project = Project(spec("s", 2), spec("z", None), failing=[failing])
        outcomes = await project.roll("s.1", "s.2", "z")
        assert {"refused"} == {outcomes[name][0] for name in ("s.2", "z")}
        assert "left as it was: " in outcomes["z"][1]
        assert f"{failing} did not become ready: no room" in outcomes["z"][1]
        if failing == "s.3":
            assert ["add s.3", "remove s.3"] == project.told
            assert "refused" == outcomes["s.1"][0]
        else:
            assert ["add s.3", "restart s.1"] == project.told
            assert "failed" == outcomes["s.1"][0]
            assert "s.3 serves until the next `pbus up`" in outcomes["s.1"][1]

    rolled(main)


def test_limit_is_kept_without_room():
    """A process over its limit is replaced though one more is not ready; the reason goes with it."""

    async def main() -> None:
        project = Project(spec("s", 1), failing=["s.2"])
        outcomes = await project.roll("s.1", reason="recycled: old")
        assert ["add s.2", "remove s.2", "s.1: recycled: old", "restart s.1 alone"] == project.told
        assert "done" == outcomes["s.1"][0]

    rolled(main)


def test_what_does_not_run_is_left():
    """A stopped worker is not started by it, and an unknown name is no error."""

    async def main() -> None:
        project = Project(spec("s", 2))
        project.workers["s.2"].is_running = False
        outcomes = await project.roll("s.1", "s.2", "gone")
        assert ("unchanged", "it does not run") == outcomes["s.2"]
        assert ("refused", "left as it was") == outcomes["gone"]
        assert ["add s.3", "restart s.1", "remove s.3"] == project.told

    rolled(main)


def test_stop_of_the_project_ends_it():
    """A final stop in the middle leaves the rest alone, and nothing is waited for."""

    async def main() -> None:
        project = Project(spec("s", 2))
        come_up = FakeWorker._come_up

        def end(worker: FakeWorker) -> None:
            come_up(worker)
            if worker.status.start_count == 2:
                for one in project.workers.values():
                    one.target.is_final, one.is_running = True, False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FakeWorker, "_come_up", end)
            outcomes = await project.roll("s.1", "s.2")
        assert "s.1 was stopped meanwhile" in outcomes["s.1"][1]
        assert "refused" == outcomes["s.2"][0]
        assert ["add s.3", "restart s.1"] == project.told

    rolled(main)


def test_two_take_turns():
    """A second one begins when the first is done, with a stand-in of its own."""

    async def main() -> None:
        project = Project(spec("s", 1))
        first = project.rolling.start(["s.1"])
        third = project.rolling.start(["s.1"])
        while not first.outcomes:
            await asyncio.sleep(0)
        assert {"s"} == project.rolling.groups  # while one is left to come
        second = await project.roll("s.1")
        assert ["add s.2", "restart s.1", "remove s.2"] * 3 == project.told
        assert first.outcomes == third.outcomes == second == {"s.1": ("done", "")}

    rolled(main)


def test_error_of_ours_ends_no_project(caplog: pytest.LogCaptureFixture):
    """It is logged, told for each worker, and the next one is not held up."""

    async def main() -> None:
        project = Project(spec("s", 1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Project, "add", lambda *_: 1 / 0)
            outcomes = await project.roll("s.1")
        assert ("refused", "left as it was") == outcomes["s.1"]
        assert "done" == (await project.roll("s.1"))["s.1"][0]
        assert project.workers.get(replica_name("s", 2)) is None

    rolled(main)
    assert "a rolling restart failed" in caplog.text
