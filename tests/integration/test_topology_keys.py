"""What a topology says about the wire and the loop reaches the processes."""

import asyncio
import importlib.util
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from pbus.errors import LoopMissingError
from pbus.topology.model import WorkerSpec
from support.supervisor_helpers import PATIENCE_S, supervised, topology

WORKERS = """
import asyncio, os
from pbus import BaseWorker

class Plain(BaseWorker):
    async def start(self):
        print("loop", type(asyncio.get_running_loop()).__module__.partition(".")[0])
        print("encoding", os.environ["PBUS_ENCODING"])
        self.create_task(self.speak())

    async def speak(self):
        while True:
            await self.send_bus_error_message("for all to hear")
            await asyncio.sleep(0.1)
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state, sockets and worker classes of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "own_workers.py").write_text(WORKERS)


def plain(folder: Path, encoding: str, loop: str):
    """One worker on a broker of its own."""
    spec = WorkerSpec(name="a", working_dir=folder, joins=True, worker="own_workers:Plain")
    what = topology(folder, spec)
    bus = msgspec.structs.replace(what.bus, encoding=encoding)
    return msgspec.structs.replace(what, bus=bus, loop=loop)


@pytest.mark.redis
@pytest.mark.parametrize(("encoding", "loop"), [("json", "asyncio"), ("msgpack", "uvloop")])
def test_child_obeys_topology(tmp_path: Path, encoding: str, loop: str):
    """A worker runs on the loop named, writes as told, and others can read how it writes."""

    async def main() -> None:
        async with supervised(plain(tmp_path, encoding, loop)) as watched:
            await watched.line(f"loop {loop}")
            await watched.line(f"encoding {encoding}")
            record = watched.project.read_record()
            assert record is not None
            assert encoding == record.bus.encoding

            payload = await first_payload(record.bus.url)
            assert (b'"type":"' in payload) == (encoding == "json")

    asyncio.run(main())


async def first_payload(url: str) -> bytes:
    """What the broker carries next: bytes of a process of this project."""
    async with Redis.from_url(url) as redis, redis.pubsub() as following:
        await following.psubscribe("{pbus:app}:[ds]:*")
        async with asyncio.timeout(PATIENCE_S):
            async for item in following.listen():
                if item["type"] == "pmessage" and b"to hear" in item["data"]:
                    return bytes(item["data"])
    return b""


def test_missing_loop_refused_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A loop that is not installed is an error of `up`, not of each worker again and again."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    async def main() -> None:
        async with supervised(plain(tmp_path, "json", "uvloop")) as watched:
            with pytest.raises(LoopMissingError):
                await watched.code()
            assert [] == watched.events

    asyncio.run(main())
