"""Keys over real processes: replicas are killed, and taken out of the file, while messages come."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from pbus.bus.connect import make_bus
from pbus.client import Client
from pbus.messages import BusDataMessage
from pbus.process.supervisor_events import Ready
from pbus.routing_keys import owner_of
from pbus.topology.model import Topology, WorkerSpec
from support.supervisor_helpers import PATIENCE_S, Watched, restarting, supervised, topology
from support.waiting import until

pytestmark = pytest.mark.redis

NAMES = ["stt.1", "stt.2", "stt.3"]
KEYS = [f"call-{number}" for number in range(9)]
WORKERS = """
import asyncio, os
from pbus import BaseWorker, BusDataMessage, job

class KeyedWord(BusDataMessage):
    number: int

class Recogniser(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, KeyedWord):
            with open("came", "a") as file:
                file.write(f"{self.name} {message.key} {message.number}\\n")

    @job(name="who")
    async def who(self, request):
        return {"by": self.name}

class Stuck(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, KeyedWord):
            await asyncio.sleep(600)
"""


class KeyedWord(BusDataMessage):
    """A part of a call."""

    number: int


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state, sockets and worker classes of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "keyed_workers.py").write_text(WORKERS)


def project(
    folder: Path, delivery: str, replicas: int = 3, cls: str = "Recogniser", **changes: object
) -> Topology:
    spec = WorkerSpec(
        name="stt", working_dir=folder, joins=True, worker=f"keyed_workers:{cls}", replicas=replicas
    )
    what = restarting(topology(folder, spec), **changes)
    return msgspec.structs.replace(what, bus=msgspec.structs.replace(what.bus, delivery=delivery))


@contextlib.asynccontextmanager
async def caller(watched: Watched, count: int) -> AsyncIterator[Client]:
    """A client of the project, once so many replicas are ready."""
    await watched.nth(Ready, count)
    record = watched.project.read_record()
    assert record is not None
    async with make_bus(record.bus) as bus, Client(bus) as client:
        yield client


def came(folder: Path) -> list[tuple[str, str, int]]:
    """The replica, key and number of all that was handled, in order."""
    file = folder / "came"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(name, key, int(number)) for name, key, number in map(str.split, lines)]


def kill(watched: Watched, name: str) -> None:
    pid = watched.process(name).pid
    assert pid is not None
    psutil.Process(pid).kill()


def owned_by(name: str) -> list[str]:
    return [key for key in KEYS if owner_of(key, NAMES) == name]


def test_killed_replica_keeps_its_stored_keys(tmp_path: Path):
    """At least once: all that is sent meanwhile waits for its restart, complete and in order."""

    async def main() -> None:
        async with (
            supervised(project(tmp_path, "at-least-once")) as watched,
            caller(watched, 3) as client,
        ):
            for number in range(30):
                if number == 10:
                    kill(watched, "stt.2")
                for key in KEYS:
                    reached = await client.send("stt", "KeyedWord", {"number": number}, key=key)
                    assert [owner_of(key, NAMES)] == reached
            answer = await client.job("stt", "who", key=owned_by("stt.2")[0], timeout=PATIENCE_S)
            assert {"by": "stt.2"} == answer
            await until(lambda: {30} == {len(set(numbers)) for numbers in by_key().values()})
            for name, key, _ in came(tmp_path):
                assert owner_of(key, NAMES) == name
            for numbers in by_key().values():  # one may be handled twice, by both incarnations
                assert list(range(30)) == list(dict.fromkeys(numbers))
            assert "backoff" in watched.states("stt.2")

    def by_key() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {key: [] for key in KEYS}
        for _, key, number in came(tmp_path):
            found[key].append(number)
        return found

    assert owned_by("stt.2")
    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


def test_killed_replica_leaves_its_keys(tmp_path: Path):
    """At most once: to the others, as soon as its death is known; theirs stay where they are."""

    async def main() -> None:
        async with (
            supervised(project(tmp_path, "at-most-once", policy="never")) as watched,
            caller(watched, 3) as client,
        ):
            for key in KEYS:
                assert [owner_of(key, NAMES)] == await client.send(
                    "stt", "KeyedWord", {"number": 1}, key=key
                )
            await until(lambda: len(came(tmp_path)) == len(KEYS))
            kill(watched, "stt.2")
            key, left = owned_by("stt.2")[0], ["stt.1", "stt.3"]
            while [owner_of(key, left)] != await client.send(
                "stt", "KeyedWord", {"number": 2}, key=key
            ):
                await asyncio.sleep(0.01)
            for key in KEYS:
                assert [owner_of(key, left)] == await client.send(
                    "stt", "KeyedWord", {"number": 3}, key=key
                )
                assert {"by": owner_of(key, left)} == await client.job("stt", "who", key=key)
            await until(lambda: len([one for one in came(tmp_path) if one[2] == 3]) == len(KEYS))
            found = defaultdict(set)
            for name, key, number in came(tmp_path):
                found[key, number].add(name)
            for key in KEYS:
                assert ({owner_of(key, NAMES)}, {owner_of(key, left)}) == (
                    found[key, 1], found[key, 3]
                )  # fmt: skip
                if owner_of(key, NAMES) != "stt.2":
                    assert found[key, 1] == found[key, 3]

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


def test_fewer_replicas_lose_nothing(tmp_path: Path):
    """The messages of one that is no longer in the file go to those that are, by their keys, in order."""

    async def main() -> None:
        async with (
            supervised(project(tmp_path, "at-least-once", cls="Stuck")) as watched,
            caller(watched, 3) as client,
        ):
            for number in range(5):
                for key in KEYS:
                    await client.send("stt", "KeyedWord", {"number": number}, key=key)
                await client.send("stt.3", "KeyedWord", {"number": number})
        fewer = project(tmp_path, "at-least-once", replicas=2)
        async with supervised(fewer) as watched, caller(watched, 2) as client:
            await until(lambda: len(came(tmp_path)) == 5 * (len(KEYS) + 1))
            assert client.bus.queues is not None
            queues = {one.name for one in await client.bus.queues.stats(names_only=True)}
            assert {"stt", "stt.1", "stt.2"} == {one for one in queues if "stt" in one}
        for key in KEYS:
            owner = owner_of(key, ["stt.1", "stt.2"])
            mine = [(name, number) for name, found, number in came(tmp_path) if found == key]
            assert [(owner, number) for number in range(5)] == mine
        assert list(range(5)) == sorted(n for _, key, n in came(tmp_path) if key == "None")

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))
