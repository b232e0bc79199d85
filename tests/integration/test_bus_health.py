"""Handlers that hang, loops that are blocked and jobs that are counted, in real processes."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import pbus.client
from pbus.process.supervisor_events import Line, StateChanged
from pbus.topology.model import WorkerSpec
from pbus.topology.policy.policies import BusProbe, HealthSpec, LimitsSpec, RestartSpec
from support.supervisor_helpers import Watched, supervised, topology

pytestmark = pytest.mark.redis

WORKERS = """
import asyncio, os, time
from pbus import BaseWorker, BusDataMessage, job

class Work(BusDataMessage):
    pass

class Hung(BaseWorker):
    async def on_bus_message(self, message):
        while isinstance(message, Work) and not os.path.exists("go"):
            await asyncio.sleep(0.01)

class Stuck(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, Work):
            time.sleep(600)

class Counted(BaseWorker):
    @job(name="count")
    async def count(self, request):
        return {"by": self.name}
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state, sockets and worker classes of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "own_workers.py").write_text(WORKERS)


def hosted(name: str, kind: str, folder: Path, **changes: Any) -> WorkerSpec:
    """A worker that is a class; an end that counted would be its last."""
    return WorkerSpec(
        name=name,
        working_dir=folder,
        joins=True,
        worker=f"own_workers:{kind}",
        restart=RestartSpec(initial_s=0.01),
        **changes,
    )


def quick(probe: BusProbe, *, restart: bool = True) -> HealthSpec:
    """A health check that is soon repeated."""
    return HealthSpec(probe=probe, every_s=0.2, failures=1, restart=restart)


def client_of(watched: Watched) -> pbus.client.Client:
    """A client on the project's bus."""
    bus = watched.supervisor.bus
    return pbus.client.connect(url=bus.url, channel=bus.channel, key=watched.key)


def details(watched: Watched, worker: str, state: str) -> list[str]:
    """The details of a worker's changes to a state."""
    changes = watched.all(StateChanged)
    return [one.detail for one in changes if (one.worker, one.state) == (worker, state)]


def has_ended(watched: Watched, worker: str) -> bool:
    """Whether the log of a worker tells of the end of its handler."""
    lines = [one for one in watched.all(Line) if one.worker == worker]
    return any(
        "on_bus_message of Work from cli-" in one.text and " has ended after " in one.text
        for one in lines
    )


def test_unhealthy_by_handler_or_silence(tmp_path: Path):
    """A handler over its limit and a blocked loop end the process, or are only shown; others go on."""
    limit = BusProbe(max_handler_s=1.0)
    what = topology(
        tmp_path,
        hosted("hung", "Hung", tmp_path, health=quick(limit)),
        hosted("shown", "Hung", tmp_path, health=quick(limit, restart=False)),
        hosted("stuck", "Stuck", tmp_path, health=quick(BusProbe(max_silence_s=3.0))),
        hosted("fine", "Counted", tmp_path, health=quick(BusProbe(3.0, 1.0))),
    )

    async def main() -> None:
        began = time.time()
        async with supervised(what) as watched:
            for name in what.workers:
                await watched.state(name, "ready")
            async with client_of(watched) as client, client.events() as changes:
                for name in ("hung", "shown", "stuck"):
                    await client.send(name, "Work", {})
                await watched.until(lambda: details(watched, "hung", "backoff"))
                await watched.until(lambda: details(watched, "shown", "unhealthy"))
                rows = {row.name: row for row in await client.workers()}
                handler = rows["shown"].handler
                assert handler is not None
                assert ("on_bus_message", "Work", client.name) == (
                    handler.name,
                    handler.type,
                    handler.source,
                )
                assert 1.0 < handler.running_s < time.time() - began
                assert rows["fine"].handler is None
                async for change in changes:
                    if change.worker == "shown" and change.detail.startswith("in on_bus_message"):
                        break
                await watched.line(change.detail)  # the log has it, too
            await watched.until(lambda: details(watched, "stuck", "backoff"))
            (reason,) = details(watched, "hung", "backoff")
            assert reason.startswith("unhealthy, 1 checks failed: on_bus_message of Work from cli-")
            assert "s, its limit is 1 s" in reason
            (reason,) = details(watched, "stuck", "backoff")
            assert "its event loop is blocked: no heartbeat for " in reason
            assert "on_bus_message of Work from cli-" in watched.process("shown").trouble
            (tmp_path / "go").touch()
            for name in what.workers:
                await watched.state(name, "ready")
            await watched.until(lambda: has_ended(watched, "shown"))
            restarts = {name: watched.process(name).restarts for name in what.workers}
            assert {"hung": 1, "shown": 0, "stuck": 1, "fine": 0} == restarts
            assert 0 == await watched.stop()

    asyncio.run(main())


def test_recycled_after_jobs(tmp_path: Path):
    """A replica is replaced after its jobs, drained, and the other one takes the jobs meanwhile."""
    limits = LimitsSpec(jobs=5)
    what = topology(tmp_path, hosted("counted", "Counted", tmp_path, replicas=2, limits=limits))
    names = ("counted.1", "counted.2")

    async def main() -> None:
        async with supervised(what) as watched:
            for name in names:
                await watched.state(name, "ready")
            async with client_of(watched) as client:
                while not all(watched.states(name).count("ready") >= 2 for name in names):
                    answer = await client.job("counted", "count", timeout=20, retries=3)
                    assert answer["by"].startswith("counted.")  # or the one that stands in
                    await asyncio.sleep(0.01)
            for name in names:
                reason = details(watched, name, "stopping")[0]
                assert reason.startswith("recycled: it has finished ")
                assert reason.endswith(" jobs, its limit is 5")
            assert 0 == await watched.stop()

    asyncio.run(main())
