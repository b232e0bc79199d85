"""Programs of users that reach a running project through `pbus.client`."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pbus.routing_keys import owner_of
from support.cli_env import PATIENCE_S, CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: shop
bus: {delivery: at-least-once}
workers:
  clerk: {worker: 'workers:Clerk', replicas: 2}
  probe: {worker: 'workers:Probe'}
"""
WORKERS = """
import asyncio

import pbus.client
from pbus import BaseWorker, BusDataMessage, job


class Note(BusDataMessage):
    text: str


class Clerk(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, Note):
            print("note", message.text)

    @job(name="greet")
    async def greet(self, request):
        for step in (1, 2):
            await self.send_job_update(request.job_id, {"step": step})
        return {"text": f"Hello, {request.payload['who']}!", "by": self.name}

    @job(name="endless")
    async def endless(self, request):
        try:
            print("endless began")
            await asyncio.Event().wait()
        finally:
            print("endless was cancelled")


class Probe(BaseWorker):
    @job(name="ask")
    async def ask(self, request):
        async with pbus.client.connect() as client:
            answer = await client.job("clerk", "greet", {"who": self.name})
            return {"project": client.project, "text": answer["text"]}
"""
HEAD = """
import asyncio, json, sys, time
import pbus.client
from pbus import CallTimeoutError, UnknownNameError, WorkerNotFoundError

"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Place]:
    """A project for the programs of this module."""
    with CliEnv() as cli:
        place = cli.place("shop", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
        place.up()
        yield place


def start(place: Place, program: str, *, folder: Path | None = None) -> "subprocess.Popen[str]":
    """A program of a user, on its way."""
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + program],
        cwd=folder or place.folder, env=place.cli.environ, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def told(place: Place, program: str, *, folder: Path | None = None) -> Any:
    """What a program prints as JSON, in its last line."""
    process = start(place, program, folder=folder)
    out, err = process.communicate(timeout=2 * PATIENCE_S)
    assert 0 == process.returncode, err
    return json.loads(out.splitlines()[-1])


def test_asyncio_program(shop: Place, tmp_path: Path):
    """It asks, looks and controls, by the project's name from any folder."""
    said = told(
        shop,
        """
async def main():
    said = {}
    async with pbus.client.connect(project="shop") as client:
        said["ready"] = await client.wait_ready(timeout=20)
        said["greeting"] = await client.job("clerk", "greet", {"who": "Ada"}, timeout=20)
        said["inner"] = await client.job("probe", "ask", timeout=20)
        said["workers"] = [(row.name, row.state, row.queue is not None) for row in await client.workers()]
        async with client.events() as events:
            results = await client.control.restart("clerk.1", timeout=20)
            said["restarted"] = [(one.worker, one.outcome) for one in results]
            states = [await anext(events)]
            while states[-1].state != "ready":
                states.append(await anext(events))
        said["states"] = sorted({one.worker for one in states})
        try:
            await client.control.stop("clrk")
        except UnknownNameError as error:
            said["nearest"] = (error.name, error.nearest)
    print(json.dumps(said))

asyncio.run(main())
""",
        folder=tmp_path,
    )

    assert ["clerk.1", "clerk.2", "probe"] == said["ready"]
    assert ("Hello, Ada!", True) == (said["greeting"]["text"], "clerk." in said["greeting"]["by"])
    assert {"project": "shop", "text": "Hello, probe!"} == said["inner"]
    assert [[name, "ready", True] for name in said["ready"]] == said["workers"]
    assert [["clerk.1", "done"]] == said["restarted"]
    assert ["clerk.1"] == said["states"]
    assert ["clrk", "clerk"] == said["nearest"]


def test_any_bus_by_its_url(shop: Place):
    """With its key; who has another is heard by no worker, and finds none."""
    record = shop.record()["bus"]
    said = told(
        shop,
        f"""
at = {{"url": {record["url"]!r}, "channel": {record["channel"]!r}, "delivery": "at-least-once"}}

async def main():
    async with pbus.client.connect(**at, key={record["key"]!r}) as client:
        said = {{"text": (await client.job("clerk", "greet", {{"who": "url"}}))["text"]}}
    async with pbus.client.connect(**at, key="x" * 32, find_timeout=0.5) as client:
        said["seen"] = len(await client.workers())
        try:
            await client.job("clerk", "greet", {{"who": "stranger"}})
        except WorkerNotFoundError as error:
            said["missing"] = error.name
    print(json.dumps(said))

asyncio.run(main())
""",
    )

    assert {"text": "Hello, url!", "seen": 0, "missing": "clerk"} == said


def test_stored_messages(shop: Place):
    """They wait for who is stopped, may be dropped, and those that were given up are put back."""
    said = told(
        shop,
        """
async def main():
    said = {}
    async with pbus.client.connect(file="topology.yaml") as client:
        await client.control.stop("probe", timeout=20)
        said["sent"] = await client.send("probe", "Note", {"text": "kept"})
        said["purged"] = await client.purge("probe")
        await client.send("probe", "Unheard", {"x": 1})
        await client.control.start("probe", timeout=20)
        async with asyncio.timeout(20):
            while not (messages := await client.dead_letters.list("probe")):
                await asyncio.sleep(0.05)
            said["reason"] = messages[0].reason
            said["requeued"] = await client.dead_letters.requeue(messages[0].key)
            while not await client.dead_letters.list("probe"):
                await asyncio.sleep(0.05)
        said["dropped"] = await client.dead_letters.drop(worker="probe")
    print(json.dumps(said))

asyncio.run(main())
""",
    )

    assert (["probe"], 1, 1, 1) == tuple(
        said[key] for key in ("sent", "purged", "requeued", "dropped")
    )
    assert "its type is unknown here" in said["reason"]


def test_program_in_a_notebook(shop: Place):
    """The synchronous client works in a thread whose loop runs, and every call ends in time."""
    said = told(
        shop,
        """
async def cell():
    said = {}
    with pbus.client.connect_sync("shop") as client:
        said["greeting"] = client.job("clerk", "greet", {"who": "Bob"}, timeout=20)["text"]
        with client.open_job("clerk", "greet", {"who": "Eve"}, timeout=20) as asked:
            said["steps"] = [event.data["step"] for event in asked]
        said["text"] = asked.response["text"]
        said["ready"] = [row.name for row in client.workers(ready=True)]
        with client.tail(timeout=30, type="Note", key="call-*") as notes:
            client.send("clerk", "Note", {"text": "other"})
            said["reached"] = client.send("clerk", "Note", {"text": "sync"}, key="call-17")
            note = next(iter(notes))
            said["note"] = [note.key, note.target, note.data]
        said["by"] = client.job("clerk", "greet", {"who": "Ann"}, timeout=20, key="call-17")["by"]
        client.request_job("clerk", "greet", {"who": "Ann"}, timeout=20, key="call-17")
        said["texts"] = client.send_text("clerk", "x", key="call-17")
        said["restarted"] = [one.worker for one in client.control.restart("clerk.2", timeout=20)]
        said["messages"] = len(client.dead_letters.list())
        started = time.monotonic()
        said["events"] = len(list(client.events(timeout=0.1)))
        try:
            client._thread.call("nothing", asyncio.Event().wait, 0.1)
        except CallTimeoutError as error:
            said["late"] = error.call
    print(json.dumps(said))

asyncio.run(cell())
""",
    )

    assert ("Hello, Bob!", "Hello, Eve!") == (said["greeting"], said["text"])
    assert [1, 2] == said["steps"]
    assert {"clerk.1", "clerk.2"} <= set(said["ready"])
    owner = owner_of("call-17", ["clerk.1", "clerk.2"])
    assert ["call-17", owner, {"text": "sync"}] == said["note"]
    assert [owner] == said["reached"] == said["texts"] == [said["by"]]
    assert ["clerk.2"] == said["restarted"]
    assert "nothing" == said["late"]


@pytest.mark.parametrize(
    "program",
    [
        """
async def main():
    async with pbus.client.connect("shop") as client:
        await client.job("clerk.1", "endless", timeout=600)

asyncio.run(main())
""",
        """
client = pbus.client.connect_sync("shop")
client.job("clerk.1", "endless", timeout=600)
""",
    ],
    ids=["asyncio", "sync"],
)
def test_interrupt_cancels_the_job(shop: Place, program: str):
    """Ctrl-C in a program that waits."""
    began, cancelled = (
        shop.logs("clerk.1").count(f"endless {what}") for what in ("began", "was cancelled")
    )
    process = start(shop, program)
    wait_for(lambda: shop.logs("clerk.1").count("endless began") == began + 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)

    assert 0 != process.returncode
    wait_for(lambda: shop.logs("clerk.1").count("endless was cancelled") == cancelled + 1)


def test_client_outlives_its_broker(shop: Place):
    """The broker is killed and started again; the same client asks, and is answered."""
    process = start(
        shop,
        """
async def main():
    async with pbus.client.connect("shop") as client:
        await client.job("clerk", "greet", {"who": "before"}, timeout=20)
        print("ready", flush=True)
        await asyncio.to_thread(input)
        answer = await client.job("clerk", "greet", {"who": "after"}, timeout=30)
        print(answer["text"])

asyncio.run(main())
""",
    )
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()
    broker = shop.child("valkey")
    broker.kill()
    broker.wait(PATIENCE_S)
    out, err = process.communicate("killed\n", timeout=2 * PATIENCE_S)

    assert "Hello, after!" in out, err
