"""`pbus ps`, `dlq`, `purge` and `down` of a project that keeps messages until they are handled."""

import json
import os
import signal
from typing import Any

import pytest

from pbus.routing_keys import owner_of
from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: farm
bus: {delivery: at-least-once, max_attempts: 1, max_backlog_bytes: 16MB, when_full: refuse}
workers:
  field: {worker: 'workers:Field'}
  barn: {worker: 'workers:Barn', replicas: 2}
"""
WORKERS = """
import asyncio
from pbus import BaseWorker, BusDataMessage

class Seed(BusDataMessage):
    number: int

class Sack(BusDataMessage):
    text: str

class Field(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, Seed):
            print("seed", message.number, flush=True)
            if message.number < 0:
                raise ValueError("a stone")
            if message.number == 100:
                await asyncio.sleep(600)

class Barn(BaseWorker):
    pass
"""
BARNS = ["barn.1", "barn.2"]
QUEUE_FIELDS = ["backlog", "backlog_bytes", "in_flight", "oldest_s", "retries", "dead", "dead_fell"]


@pytest.fixture(scope="module")
def farm(cli: CliEnv) -> Place:
    """A project with durable queues; a test may leave messages in them, and end it."""
    place = cli.place("farm", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
    place.up()
    return place


def sow(farm: Place, number: int, count: int = 1) -> None:
    """Send seeds."""
    data = f'{{"number": {number}}}'
    done = farm.tell("send", "field", "--type", "Seed", "--data", data, "--count", str(count))
    assert 0 == done.code, done.err


def dead(farm: Place) -> list[dict[str, Any]]:
    """The dead letters."""
    return farm.tell("dlq", "ls", "--json").json["dead_letters"]


def test_dead_letters_are_looked_after(farm: Place):
    """What is tried too often is listed, shown, put back and dropped."""
    sow(farm, -1, count=2)
    assert 2 == len(wait_for(lambda: (found := dead(farm)) and len(found) == 2 and found))
    first, second = dead(farm)
    assert ("field", "Seed", 1, 0) == tuple(
        first[key] for key in ("worker", "type", "attempts", "crashes")
    )
    assert "ValueError: a stone" == first["reason"]
    assert "a stone" in farm.run("dlq", "ls").out
    assert -1 == farm.run("dlq", "show", first["key"]).json["message"]["number"]

    assert {"requeued": 1} == farm.run("dlq", "requeue", first["key"], "--json").json
    wait_for(lambda: farm.logs("field").count("seed -1") == 3)
    assert 0 == farm.run("-p", "farm", "dlq", "drop", second["key"]).code
    wait_for(lambda: len(dead(farm)) == 1)
    assert 1 == farm.rows()["field"]["dead"]
    assert {"dropped": 1} == farm.tell("dlq", "drop", "--all", "--json").json
    assert [] == dead(farm)
    unknown = farm.tell("dlq", "drop", "nonsense")
    assert (1, True) == (unknown.code, "no dead letter has the key nonsense" in unknown.err)
    assert 2 == farm.tell("dlq", "drop").code


def test_message_to_who_is_down_is_kept(farm: Place):
    """What is sent to a worker that is stopped waits for it; who does not exist is named."""
    farm.tell("stop", "field")
    sent = farm.tell("send", "field", "--text", "for later")
    wrong = farm.tell("send", "feild", "--text", "x", "--timeout", "0")
    farm.tell("start", "field")

    assert (0, True) == (sent.code, "field is not there: what is sent is kept for it" in sent.err)
    assert 4 == wrong.code
    assert "did you mean 'field'?" in wrong.err


def test_backlog_is_bounded_in_bytes(farm: Place):
    """Of 400 messages of 1 MB to a stopped worker those are kept that fit; the next one is refused."""
    (farm.folder / "sack.json").write_text(json.dumps({"text": "x" * 1_000_000}))
    farm.tell("stop", "field")
    sent = farm.run("send", "field", "--type", "Sack", "--data", "@sack.json", "--count", "400")
    row = farm.rows()["field"]
    used = farm.broker().info("memory")["used_memory"]

    assert 4 == sent.code
    assert "its queue 'field' holds 16,00" in sent.err
    assert "bytes of at most 16,777,216 (max_backlog_bytes)" in sent.err
    assert 16 == row["backlog"]
    assert 16_000_000 < row["backlog_bytes"] <= 16 * 1024**2
    assert used < 64 * 1024**2
    assert {"worker": "field", "dropped": 16} == farm.tell("purge", "field", "--json").json
    assert 0 == farm.rows()["field"]["backlog_bytes"]
    farm.tell("start", "field")


def test_backlog_shows_and_is_kept(farm: Place):
    """`ps` shows what waits; `purge` drops it; `down` says what it keeps, and `up` goes on."""
    rows = farm.tell("ps", "--json").json
    assert [QUEUE_FIELDS] * 3 == [list(row)[-len(QUEUE_FIELDS) :] for row in rows["workers"]]
    assert ["barn"] == [one["name"] for one in rows["shared"]]

    sow(farm, 100)
    wait_for(lambda: "seed 100" in farm.logs("field"))
    sow(farm, 1, count=4)
    row = farm.rows()["field"]
    assert 5 == row["backlog"]
    assert row["oldest_s"] >= 0
    table = farm.run("ps").out
    assert "BACKLOG" in table
    assert "barn: 0 messages wait for its replicas" in table

    down = farm.run("down", "--timeout", "1")  # a seed would take ten minutes
    assert "5 unhandled messages are kept" in down.err
    up = farm.start("up", "--plain")
    wait_for(lambda: farm.logs("field").count("seed 100") == 2)
    wait_for(lambda: farm.rows().get("field", {}).get("backlog") == 5)
    up.process.send_signal(signal.SIGINT)
    up.until("stopping")
    done = up.end(signal.SIGINT)
    assert "5 unhandled messages are kept" in done.err


def test_stored_messages_are_dropped_on_demand(farm: Place):
    """`purge` drops waiting messages, not those in flight; `down --purge` leaves nothing."""
    if not farm.cli.records():
        farm.up()
    os.kill(int(farm.rows()["field"]["pid"]), signal.SIGSTOP)
    kept = farm.rows()["field"]["backlog"]
    sow(farm, 1, count=3)
    wait_for(lambda: farm.rows()["field"]["backlog"] == kept + 3)
    waiting = kept + 3 - farm.rows()["field"]["in_flight"]
    assert {"worker": "field", "dropped": waiting} == farm.run("purge", "field", "--json").json
    assert 2 == farm.tell("purge", "nobody").code
    sow(farm, 1, count=2)

    state = farm.record_path().parent
    down = farm.run("down", "--purge", "--timeout", "1")  # a stopped worker is not waited for
    assert (0, False, False) == (down.code, "kept" in down.err, state.exists())
    farm.up()
    assert [0, 0, 0] == [row["backlog"] for row in farm.rows().values()]


def test_keyed_messages_wait_for_their_replica(farm: Place):
    """What is sent by key to a stopped replica is kept for it, and not given to the other one."""
    key = next(f"call-{n}" for n in range(99) if owner_of(f"call-{n}", BARNS) == "barn.2")
    farm.until(lambda rows: all(rows[name]["ready"] for name in BARNS))
    assert 0 == farm.tell("stop", "barn.2").code
    send = ("send", "barn", "--type", "Sack", "--data", '{"text": "oats"}', "--key", key)

    done = farm.run(*send, "--count", "3")

    assert (0, "sent 3 x Sack to barn.2\n") == (done.code, done.err)
    rows = farm.rows()
    assert [0, 3] == [rows[name]["backlog"] for name in BARNS]
    assert 0 == farm.tell("start", "barn.2").code
    farm.until(lambda rows: rows["barn.2"]["backlog"] == 0 and rows["barn.2"]["received"] >= 3)
