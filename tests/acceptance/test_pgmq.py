"""`backend: pgmq`: a project on an embedded Postgres, with every verb that others have."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from support.cli_env import CliEnv, Place, living, wait_for
from support.terminal import terminal

pytestmark = [pytest.mark.cli, pytest.mark.pgmq]

TOPOLOGY = """
name: orchard
bus: {backend: pgmq, max_attempts: 1}
workers:
  tree: {worker: 'workers:Tree'}
  cellar: {worker: 'workers:Tree'}
  cart: {worker: 'workers:Tree', replicas: 2}
"""
WORKERS = """
import asyncio
from pbus import BaseWorker, BusDataMessage, job

class Apple(BusDataMessage):
    number: int

class Tree(BaseWorker):
    @job(name="double")
    async def double(self, request):
        return {"number": 2 * request.payload["number"]}

    @job(name="endless")
    async def endless(self, request):
        await self.send_job_update(request.job_id, {"step": 1})
        await asyncio.Event().wait()

    async def on_bus_message(self, message):
        await super().on_bus_message(message)
        if isinstance(message, Apple):
            print("apple", message.number, flush=True)
            if message.number < 0:
                raise ValueError("a worm")
            if message.number == 100:
                await asyncio.Event().wait()
"""
# What a launcher left behind for other programs: none of it concerns this project.
FOREIGN = {
    "PGHOST": "elsewhere.invalid", "PGPORT": "1,2,x", "PGUSER": "mallory", "PGDATABASE": "other",
    "PGPASSFILE": "/nowhere", "PGSSLMODE": "verify-full", "PGSSLCERT": "/nowhere",
    "PGSSLNEGOTIATION": "direct", "PGTARGETSESSIONATTRS": "standby", "PGOPTIONS": "-c nonsense=1",
    "PGDATA": "/nowhere", "PGTZ": "nonsense", "PGSERVICE": "other", "TZ": "nonsense",
    "LANG": "xx_YY.UTF-8", "LC_MESSAGES": "xx_YY.UTF-8", "LC_COLLATE": "xx_YY.UTF-8",
}  # fmt: skip
QUEUE_FIELDS = ["backlog", "backlog_bytes", "in_flight", "oldest_s", "retries", "dead", "dead_fell"]


@pytest.fixture(scope="module")
def orchard() -> Iterator[Place]:
    """The project; for root its data is not in the home, and is removed all the same."""
    with CliEnv() as cli:
        cli.environ |= FOREIGN
        place = cli.place("orchard", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
        place.up()
        sockets = socket_of(place).parent
        yield place
    if sockets.name.startswith("orchard-"):
        shutil.rmtree(sockets, ignore_errors=True)


def socket_of(orchard: Place) -> Path:
    """Where the project's Postgres listens."""
    (folder,) = parse_qs(urlsplit(orchard.record()["url"]).query)["host"]
    return Path(folder) / ".s.PGSQL.5432"


def pick(orchard: Place, worker: str, number: int, count: int = 1) -> None:
    """Send apples."""
    data = f'{{"number": {number}}}'
    words = ("send", worker, "--type", "Apple", "--data", data, "--count", str(count))
    done = orchard.tell(*words)
    assert 0 == done.code, done.err


def dead(orchard: Place) -> list[dict[str, Any]]:
    """The dead letters."""
    messages: list[dict[str, Any]] = orchard.tell("dlq", "ls", "--json").json["dead_letters"]
    return messages


def test_workers_and_jobs_are_shown(orchard: Place):
    """`ps` shows the stored messages of each worker; jobs are done, listed and cancelled."""
    listing = orchard.tell("ps", "--json").json
    assert listing["bus"].startswith("postgresql://")
    assert ["tree", "cellar", "cart.1", "cart.2"] == [row["name"] for row in listing["workers"]]
    assert [QUEUE_FIELDS] * 4 == [list(row)[-len(QUEUE_FIELDS) :] for row in listing["workers"]]
    assert ["cart"] == [one["name"] for one in listing["shared"]]
    assert {"number": 8} == orchard.ask("tree", "double", {"number": 4})
    assert {"number": 10} == orchard.ask("cart", "double", {"number": 5})

    asking = orchard.start("send", "tree", "--job", "endless", "--wait")
    asking.until('update: {"step":1}')
    (job,) = wait_for(lambda: orchard.tell("jobs", "--json").json["jobs"])
    assert ("endless", "tree", "running") == (job["name"], job["worker"], job["state"])
    assert 0 == orchard.run("cancel", job["id"], "--reason", "rain").code
    ended = asking.done()
    assert (1, True) == (ended.code, "rain" in ended.err)


def test_followers_see_kept_messages(orchard: Place):
    """`tail` and `events` see what goes on; a terminal shows the queues of `ps --watch`."""
    tail = orchard.start("tail", "--json", "--type", "Apple", "-n", "1")
    wait_for(lambda: (tail.process.poll() is not None) or pick(orchard, "tree", 5))
    (seen,) = tail.done().objects
    assert ("tree", {"number": 5}) == (seen["target"], seen["data"])

    events = orchard.start("events", "--json")
    wait_for(lambda: events.out or orchard.tell("restart", "cart.2").code)
    assert "cart.2" == events.end().objects[0]["worker"]
    wait_for(lambda: any("started, pid" in line for line in orchard.logs("cart.2")))
    with terminal(orchard, "ps", "--watch") as screen:
        screen.until("BACKLOG")
        screen.press("\x03")
        assert 130 == screen.code()


def test_dead_letters_are_looked_after(orchard: Place):
    """What is tried too often is listed, shown, put back and dropped."""
    pick(orchard, "tree", -1, count=2)
    wait_for(lambda: len(dead(orchard)) == 2)
    first, second = dead(orchard)
    assert ("tree", "Apple", 1, 0, "ValueError: a worm") == tuple(
        first[key] for key in ("worker", "type", "attempts", "crashes", "reason")
    )
    assert -1 == orchard.run("dlq", "show", first["key"]).json["message"]["number"]

    assert {"requeued": 1} == orchard.tell("dlq", "requeue", first["key"], "--json").json
    wait_for(lambda: orchard.logs("tree").count("apple -1") == 3)
    assert 0 == orchard.tell("dlq", "drop", second["key"]).code
    wait_for(lambda: len(dead(orchard)) == 1)
    assert 1 == orchard.rows()["tree"]["dead"]
    assert {"dropped": 1} == orchard.tell("dlq", "drop", "--all", "--json").json


def test_purge_empties_a_queue(orchard: Place):
    """Waiting messages are dropped, not those in flight."""
    pid = orchard.rows()["cart.1"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        pick(orchard, "cart.1", 1, count=3)
        row = orchard.until(lambda rows: rows["cart.1"]["backlog"] == 3)["cart.1"]
        dropped = orchard.tell("purge", "cart.1", "--json").json["dropped"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert 3 - row["in_flight"] == dropped
    orchard.until(lambda rows: rows["cart.1"]["backlog"] == 0)


@pytest.mark.timeout(240)
def test_kills_lose_nothing(orchard: Place):
    """Worker, server and supervisor are killed: nothing runs on, and what was kept is handled again."""
    cli = orchard.cli
    pick(orchard, "cellar", 100)
    wait_for(lambda: orchard.logs("cellar").count("apple 100") == 1)
    psutil.Process(orchard.rows()["cellar"]["pid"]).kill()
    wait_for(lambda: orchard.logs("cellar").count("apple 100") == 2)
    server = orchard.child("postgres")
    server.kill()
    wait_for(lambda: living([server]) == [])
    data = '{"number": 1}'
    asking = ("send", "tree", "--job", "double", "--data", data, "--wait", "--timeout", "10")
    wait_for(lambda: orchard.run(*asking).code == 0, 60)

    socket = socket_of(orchard)
    orchard.supervisor().kill()
    wait_for(lambda: not cli.processes() and not cli.records())
    assert (False, []) == (socket.exists(), cli.sockets())
    orchard.up()
    wait_for(lambda: orchard.logs("cellar").count("apple 100") == 3)

    state = orchard.record_path().parent
    down = orchard.run("down", "--purge", "--timeout", "1", limit_s=40)
    assert (0, False) == (down.code, "kept" in down.err)
    assert (False, False) == (state.exists(), socket.parent.exists())
