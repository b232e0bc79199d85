"""A supervisor under test: its project in a folder of the test's own, its events to wait for."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
from msgspec.structs import replace

from pbus.observe import ProcessRecord
from pbus.process.project.project import Project
from pbus.process.supervisor.supervisor import Supervisor
from pbus.process.supervisor_events import Event, Line, StateChanged
from pbus.settings import BusSettings
from pbus.topology.model import Topology, WorkerSpec

PATIENCE_S = 25.0

E = TypeVar("E")


def topology(folder: Path, *specs: WorkerSpec, url: str | None = None) -> Topology:
    """A topology of these workers, as if it came from a file in this folder."""
    return Topology(
        name="app",
        file=folder / "topology.yaml",
        folder=folder,
        bus=BusSettings(channel="pbus:app", url=url),
        workers={spec.name: spec for spec in specs},
    )


def program(name: str, code: str, folder: Path, **changes: Any) -> WorkerSpec:
    """A worker that is any program: this Python code."""
    values: dict[str, Any] = {
        "name": name,
        "working_dir": folder,
        "joins": False,
        "command": (sys.executable, "-c", code),
    }
    return WorkerSpec(**{**values, **changes})


def restarting(what: Topology, **changes: Any) -> Topology:
    """The topology with these values in every worker's `restart`."""
    workers = {
        name: replace(spec, restart=replace(spec.restart, **changes))
        for name, spec in what.workers.items()
    }
    return replace(what, workers=workers)


def is_alive(pid: int | None) -> bool:
    """Whether a process runs; a zombie that is not reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Watched:
    """A supervisor that runs, and all that it said."""

    def __init__(self, supervisor: Supervisor, project: Project) -> None:
        self.supervisor = supervisor
        self.project = project
        self.events: list[Event] = []
        self.task: asyncio.Task[int] | None = None
        self._changed = asyncio.Event()
        supervisor.listen(self._hear)

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, claim: Callable[[], object], limit_s: float = PATIENCE_S) -> None:
        """Wait until a claim holds; looked at after each event, and when the run is over."""
        async with asyncio.timeout(limit_s):
            while not claim():
                if self.task is not None and self.task.done():
                    self.task.result()
                    message = f"over before it held: {self.events[-10:]}"
                    raise AssertionError(message)
                self._changed.clear()
                await self._changed.wait()

    def all(self, kind: type[E]) -> list[E]:
        """All events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def nth(self, kind: type[E], count: int = 1) -> E:
        """Wait for so many events of one kind, and return the last of them."""
        await self.until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)[count - 1]

    async def line(self, text: str, times: int = 1) -> None:
        """Wait until a line was written so many times."""
        await self.until(lambda: [one.text for one in self.all(Line)].count(text) >= times)

    async def state(self, worker: str, state: str) -> ProcessRecord:
        """Wait until a worker is in a state."""
        await self.until(lambda: self.process(worker).state == state)
        return self.process(worker)

    @property
    def key(self) -> str | None:
        """The key of the project's bus."""
        return self.supervisor._files._record.bus.key

    def states(self, worker: str) -> list[str]:
        """The states that a worker entered."""
        return [one.state for one in self.all(StateChanged) if one.worker == worker]

    def process(self, worker: str) -> ProcessRecord:
        """What is known of a worker now."""
        return next(one for one in self.supervisor.record().processes if one.name == worker)

    async def code(self) -> int:
        """Wait for the end of the run."""
        assert self.task is not None
        return await asyncio.wait_for(self.task, PATIENCE_S)

    async def stop(self) -> int:
        """Stop it, and wait for the end of the run."""
        self.supervisor.request_stop("the test is over")
        return await self.code()


@contextlib.asynccontextmanager
async def supervised(what: Topology, **options: Any) -> AsyncIterator[Watched]:
    """A supervisor at work; whatever the test did, it is over afterwards."""
    project = Project.of(what)
    watched = Watched(Supervisor(what, project, **options), project)
    watched.task = asyncio.create_task(watched.supervisor.run())
    watched.task.add_done_callback(lambda _: watched._changed.set())
    try:
        yield watched
    finally:
        if not watched.task.done():
            watched.supervisor.request_stop("the test is over")
            watched.supervisor.request_stop("at once")
        await asyncio.wait({watched.task}, timeout=PATIENCE_S)
        watched.task.cancel()
