"""A bug of pbus in a worker's bus: the worker goes on, its log says so, and it is an event."""

import asyncio
from pathlib import Path

import pytest

from pbus.bus.connect import make_bus
from pbus.messages import STATES_ADDRESS, BusWorkerStateMessage
from pbus.topology.model import WorkerSpec
from support.listeners import Listener
from support.supervisor_helpers import PATIENCE_S, supervised, topology
from support.waiting import until

WORKERS = """
from pbus import BaseWorker

class Plain(BaseWorker):
    async def start(self):
        async def broken():
            raise RuntimeError("no code expects this")
        self.bus._beat_once = broken
"""


@pytest.mark.redis
def test_faults_of_a_workers_bus_are_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What ended by an error is told by `pbus events`, and stands in the worker's log."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "own_workers.py").write_text(WORKERS)
    spec = WorkerSpec(name="a", working_dir=tmp_path, joins=True, worker="own_workers:Plain")
    follower = Listener(STATES_ADDRESS)

    def told() -> list[BusWorkerStateMessage]:
        return [
            message
            for message in follower.messages
            if isinstance(message, BusWorkerStateMessage) and "ended by an error" in message.detail
        ]

    async def main() -> None:
        async with supervised(topology(tmp_path, spec)) as watched:
            await watched.state("a", "ready")
            record = watched.project.read_record()
            assert record is not None
            async with make_bus(record.bus) as bus:
                await bus.subscribe(follower)
                await until(told, PATIENCE_S)
            log = watched.project.log_path("a").read_text()
        assert "the beat of the bus ended by an error: a bug in pbus; it goes on" in log
        assert "no code expects this" in log
        assert ("a", "ready", "ready") == (told()[0].worker, told()[0].state, told()[0].previous)

    asyncio.run(main())
