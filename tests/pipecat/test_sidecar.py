"""Real Pipecat programs that `pbus up` starts, none of which knows of pbus."""

import json
import signal
import sys

import psutil
import pytest

from support.cli_env import CliEnv, Place, wait_for
from support.valkey import Valkey

pytestmark = pytest.mark.cli

BOT = """
import asyncio, os, sys
from loguru import logger
logger.remove()
logger.add(sys.stderr, level="WARNING")
from pipecat.bus import BusDataMessage
from pipecat.pipeline.job_context import JobGroupParams, JobParams
from pipecat.pipeline.job_decorator import job
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner


class Bot(BaseWorker):
    async def on_activated(self, args):
        await super().on_activated(args)
        print(self.name, "activated", args, flush=True)
        if "ASK" in os.environ:
            await self.watch_workers(os.environ["ASK"])

    async def on_worker_ready(self, data):
        await super().on_worker_ready(data)
        print(self.name, "sees", data.worker_name, flush=True)
        if data.worker_name == os.environ.get("ASK"):
            self.create_task(self.ask_and_tell())

    async def ask_and_tell(self):
        while not os.path.exists("go"):
            await asyncio.sleep(0.02)
        async with self.job(os.environ["ASK"], params=JobParams(name="echo", timeout=20)) as asked:
            pass
        print("answered", asked.response["by"], flush=True)

    @job(name="echo")
    async def echo(self, message):
        await self.send_job_update(message.job_id, {"percent": 50})
        await self.send_job_response(message.job_id, {"got": message.payload, "by": self.name, "pid": os.getpid()})

    @job(name="hang")
    async def hang(self, message):
        print("hangs", flush=True)
        await asyncio.Event().wait()

    async def on_job_cancelled(self, message):
        print("cancelled:", message.reason, flush=True)

    @job(name="ask")
    async def ask(self, message):
        '''Asks others and answers with what came of it.'''
        others, name = message.payload["others"], message.payload["name"]
        try:
            async with self.job_group(*others, params=JobGroupParams(name=name, timeout=20)) as group:
                pass
            await self.send_job_response(message.job_id, {"responses": group.responses})
        except Exception as error:
            await self.send_job_response(message.job_id, {"error": str(error)})

    @job(name="watch")
    async def watch(self, message):
        await self.watch_workers(message.payload["name"])
        await self.send_job_response(message.job_id, {})

    @job(name="end")
    async def end_all(self, message):
        await self.send_job_response(message.job_id, {})
        await self.end()


def make_bus():
    if "OWN_REDIS" in os.environ:
        from pipecat.bus.network.redis import RedisBus
        from redis.asyncio import Redis
        return RedisBus(redis=Redis.from_url(os.environ["OWN_REDIS"]), channel="own")


async def main():
    runner = WorkerRunner(bus=make_bus())
    await runner.add_workers(*(Bot(name) for name in sys.argv[1:]))
    await runner.run()
    print("over", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
"""
OURS = """
import asyncio
import pbus

class Ours(pbus.BaseWorker):
    @pbus.job(name="echo")
    async def echo(self, request):
        return {"got": request.payload, "by": self.name}

    @pbus.job(name="hang")
    async def hang(self, request):
        await asyncio.Event().wait()
"""
TOPOLOGY = """
workers:
  pair: {command: [PYTHON, bot.py, anna, bert], pipecat: true, restart: always}
  carl: {command: [PYTHON, bot.py, carl], pipecat: true}
  ours: {worker: 'ours:Ours'}
"""


def make(cli: CliEnv, name: str, topology: str, **files: str) -> Place:
    text = f"name: {name}\n{topology}".replace("PYTHON", sys.executable)
    return cli.place(name, {"topology.yaml": text, "bot.py": BOT, "ours.py": OURS, **files})


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A project of three processes."""
    place = make(cli, "bots", TOPOLOGY)
    place.up()
    return place


def test_workers_have_rows_and_jobs(place: Place):
    """Several of one process, each by its own name; jobs reach all, from any to any."""
    rows = place.until(lambda rows: {"pair", "anna", "bert", "carl", "ours"} <= rows.keys())
    assert rows["pair"]["pid"] == rows["anna"]["pid"] == rows["bert"]["pid"] != rows["carl"]["pid"]
    assert all(row["ready"] for row in rows.values())
    answer = place.ask("bert", "echo", {"n": 1})
    assert {"got": {"n": 1}, "by": "bert", "pid": rows["bert"]["pid"]} == answer
    payload = {"others": ["anna", "carl", "ours"], "name": "echo"}
    responses = place.ask("bert", "ask", payload)["responses"]
    assert {"anna": "anna", "carl": "carl", "ours": "ours"} == {
        name: response["by"] for name, response in responses.items()
    }
    assert "bert" in place.ask("carl", "ask", {"others": ["bert"], "name": "echo"})["responses"]


def test_open_jobs_are_listed_and_cancelled(place: Place):
    """Those that a bot asked for and those that it does, local ones too; by its requester."""
    payload = json.dumps({"others": ["anna", "carl"], "name": "hang"})
    asking = place.start("send", "bert", "--job", "ask", "--wait", "--data", payload)

    def jobs():
        return place.tell("jobs", "--json").json["jobs"]

    open_jobs = wait_for(lambda: found if len(found := jobs()) == 3 else None)
    hanging = [one for one in open_jobs if one["name"] == "hang"]
    assert {("bert", "anna", "running"), ("bert", "carl", "running")} == {
        (one["requester"], one["worker"], one["state"]) for one in hanging
    }
    assert all(0 <= one["age_s"] < 60 for one in open_jobs)
    done = place.tell("cancel", hanging[0]["id"])
    assert (0, []) == (done.code, [line for line in done.err.splitlines() if "silent" in line])
    assert asking.done().code == 0
    wait_for(lambda: not jobs())
    refused = place.tell("cancel", hanging[0]["id"])
    assert refused.code != 0


def test_a_killed_bot_is_seen_and_its_successor_known(place: Place):
    """Groups with it end with an error, those that watch learn of the next one."""
    place.ask("carl", "watch", {"name": "anna"})
    wait_for(lambda: place.logs("carl").count("carl sees anna") == 1)
    hung = place.logs("pair").count("hangs")
    asking = place.start(
        "send", "carl", "--job", "ask", "--wait", "--data",
        json.dumps({"others": ["anna", "ours"], "name": "hang"}),
    )  # fmt: skip
    wait_for(lambda: place.logs("pair").count("hangs") > hung)
    before = place.rows()["anna"]["pid"]
    psutil.Process(before).send_signal(signal.SIGKILL)
    assert {"error": "worker 'anna' errored"} == asking.done().json
    wait_for(lambda: place.logs("carl").count("carl sees anna") == 2)
    rows = place.until(lambda rows: rows.get("bert", {}).get("ready"))
    assert before != rows["anna"]["pid"]
    assert "anna" in place.ask("carl", "ask", {"others": ["anna"], "name": "echo"})["responses"]


def test_jobs_of_a_killed_requester_are_cancelled(place: Place):
    """They have no one to answer to; their worker is told why, and the requester comes back."""
    hung = place.logs("pair").count("hangs")
    asking = {"others": ["bert", "ours"], "name": "hang"}
    place.start("send", "carl", "--job", "ask", "--wait", "--data", json.dumps(asking))
    wait_for(lambda: place.logs("pair").count("hangs") > hung)
    psutil.Process(place.rows()["carl"]["pid"]).send_signal(signal.SIGKILL)
    wait_for(lambda: any("cancelled: its requester was lost" in one for one in place.logs("pair")))
    place.until(lambda rows: rows.get("carl", {}).get("ready"))


def test_tail_shows_what_stays_in_a_process(place: Place):
    """Marked, once each; what leaves it is not marked, and shown once, too."""
    tail = place.start("tail", "--json", "--category", "job")
    place.until_followed(1)
    place.ask("anna", "ask", {"others": ["bert", "carl"], "name": "echo"})
    wait_for(lambda: tail.out.count('"BusJobResponseMessage"') == 3)
    shown = [json.loads(line) for line in tail.end().out.splitlines()]
    seen = sorted(
        (one["type"].removeprefix("BusJob").removesuffix("Message"), one["source"], one["target"], one.get("local", False))
        for one in shown if not one["source"].startswith("cli-") and not (one["target"] or "").startswith("cli-")
    )  # fmt: skip
    pairs = [("bert", True), ("carl", False)]
    assert seen == sorted(
        entry
        for other, local in pairs
        for entry in (
            ("Request", "anna", other, local),
            ("Update", other, "anna", local),
            ("Response", other, "anna", local),
        )
    )


def test_a_bot_is_stopped_by_message(place: Place):
    """It ends as Pipecat ends it, and is gone from the registry."""
    place.run("stop", "carl")
    assert "over" in place.logs("carl")
    assert any("exited with code 0" in line for line in place.logs("carl"))
    place.run("start", "carl")
    place.until(lambda rows: rows.get("carl", {}).get("ready"))


OWN = """
env: {OWN_REDIS: 'URL'}
workers:
  dora: {command: [PYTHON, bot.py, dora], pipecat: true, env: {ASK: emil}}
  emil: {command: [PYTHON, bot.py, emil], pipecat: true}
  ours: {worker: 'ours:Ours'}
"""


def test_a_bus_of_ones_own_is_observed_only(cli: CliEnv, valkey: Valkey):
    """Its workers have rows and end in order; what they say is seen, once, and stays on their bus."""
    place = make(cli, "observed", OWN.replace("URL", valkey.tcp_url))
    place.up()
    tail = place.start("tail", "--json", "--category", "job")
    place.until_followed(1)
    (place.folder / "go").touch()
    wait_for(lambda: "answered emil" in place.logs("dora"))
    wait_for(lambda: '"BusJobResponseMessage"' in tail.out)
    seen = [json.loads(line) for line in tail.end().out.splitlines()]
    kinds = [(one["type"], one["source"], one["target"], one.get("local")) for one in seen]
    assert sorted(kinds) == [
        ("BusJobRequestMessage", "dora", "emil", True),
        ("BusJobResponseMessage", "emil", "dora", True),
        ("BusJobUpdateMessage", "emil", "dora", True),
    ]
    assert {"dora", "emil", "ours"} == place.rows().keys()
    refused = place.tell("send", "dora", "--job", "echo", "--wait")
    assert "on a bus of its own" in refused.err
    place.run("down")
    for name in ("dora", "emil"):
        log = place.logs(name)
        assert "over" in log, log
        assert any("exited with code 0" in line for line in log), log
