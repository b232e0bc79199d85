"""The time that is given to a stop is the time that jobs get."""

import signal

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: {name}
bus: {{delivery: {name}}}
workers:
  doer: {{worker: 'workers:Doer'}}
  asker: {{worker: 'workers:Asker'}}
"""
WORKERS = """
import asyncio
from pbus import BaseWorker, job

class Doer(BaseWorker):
    @job(name="work")
    async def work(self, request):
        print("began", request.payload["for"], flush=True)
        await asyncio.sleep(request.payload["seconds"])
        return {"for": request.payload["for"]}

class Asker(BaseWorker):
    async def start(self):
        self.create_task(self.ask_aside())

    async def ask_aside(self):
        payload = {"seconds": 6, "for": "asker"}
        async with self.job("doer", name="work", payload=payload) as asked:
            pass
        print("got", asked.response["for"], flush=True)
"""


def project(cli: CliEnv, name: str) -> Place:
    """A project of that delivery whose workers are busy."""
    files = {"topology.yaml": TOPOLOGY.format(name=name), "workers.py": WORKERS}
    return cli.place(name, files)


def begun(place: Place, who: str) -> int:
    """How often the job of a caller was begun."""
    return place.logs("doer").count(f"began {who}")


def ask(place: Place, seconds: float, who: str):
    """A `pbus send --wait` whose job has begun."""
    data = f'{{"seconds": {seconds}, "for": "{who}"}}'
    asking = place.start("send", "doer", "--job", "work", "--data", data, "--wait")
    wait_for(lambda: begun(place, who))
    return asking


def test_stop_lets_jobs_be_done(cli: CliEnv):
    """`down --timeout`, `restart` and SIGTERM to `up` wait for jobs of 6 s; each is begun once."""
    once, least = project(cli, "at-most-once"), project(cli, "at-least-once")
    up = once.start("up", "--plain")
    least.up()
    wait_for(lambda: begun(once, "asker") and begun(least, "asker"))
    asking = [ask(place, 6, "shell") for place in (once, least)]

    up.process.send_signal(signal.SIGTERM)
    restarted = least.run("restart", "doer", "--timeout", "20")
    answers = [one.done() for one in asking]

    assert [0, 0] == [one.code for one in answers], answers
    assert ["shell", "shell"] == [one.json["for"] for one in answers]
    assert (143, 0) == (up.done().code, restarted.code)
    assert ["got asker"] == [line for line in once.logs("asker") if line.startswith("got")]
    assert [1, 1] == [begun(place, "shell") for place in (once, least)]

    late = ask(least, 60, "late")
    ended = least.run("down", "--timeout", "0.5")
    assert (0, 3) == (ended.code, late.done().code)
    assert "1 unhandled message is kept" in ended.err
    assert 1 == begun(least, "late")
