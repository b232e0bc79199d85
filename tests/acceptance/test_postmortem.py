"""`pbus postmortem`: ends with an error, while the project runs and after it."""

import json
import os
import signal

from support.cli_env import CliEnv, wait_for

TOPOLOGY = """
name: clinic
workers:
  boom: {worker: 'workers:Boom', restart: never}
  hang: {worker: 'workers:Hang', health: {bus: true, every: 0.5s, max_silence: 3s, failures: 1}, restart: never}
  deaf: {worker: 'workers:Deaf', stop: {grace: 0.2s}}
  nope: {command: [./nope]}
  crash: {command: [sh, -c, "echo bad >&2; exit 3"], restart: {policy: on-failure, max: 3}}
  good: {command: ["true"], restart: on-failure}
  calm: {command: [sleep, "600"]}
"""
WORKERS = r"""
import asyncio, os, time
from pbus import BaseWorker

class Boom(BaseWorker):
    async def on_activated(self, args):
        print("red \x1b[31mtext\x1b]0;title\x07 \u202eend", flush=True)
        os._exit(7)

class Hang(BaseWorker):
    async def on_activated(self, args):
        asyncio.get_running_loop().call_later(0.3, self.blocks_here)

    def blocks_here(self):
        time.sleep(600)

class Deaf(Hang):
    def blocks_here(self):
        print("blocks", flush=True)
        time.sleep(600)
"""
KEYS = [
    "project", "run", "session", "worker", "workers", "pid", "started", "ready", "ended", "start",
    "reason", "code", "signal", "is_told", "error", "sequel", "open", "traffic", "log",
    "log_left_out", "usage", "stacks", "stacks_error",
    "fates",
]  # fmt: skip


def test_ends_with_an_error_are_kept(cli: CliEnv) -> None:
    """Exit, hang, a stop that needs SIGKILL, no program, a crash loop; good ends leave none."""
    place = cli.place("clinic", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
    refused = place.tell("postmortem")
    assert (1, "") == (refused.code, refused.out)
    assert "no end with an error is kept of clinic" in refused.err
    place.run("up", "-d")
    wait_for(lambda: place.tell("logs", "deaf", "--grep", "^blocks$").out)
    wait_for(lambda: place.tell("postmortem", "hang").code == 0)
    assert 0 == place.run("restart", "calm").code
    assert 0 == place.run("down").code

    listed = place.tell("postmortem", "--list", "--json").json
    ends = [(one["worker"], one["code"], one["signal"]) for one in listed["capsules"]]
    assert "clinic" == listed["project"]
    assert ends[0] == ("deaf", None, "SIGKILL")
    assert sorted(ends, key=str) == [
        ("boom", 7, None), ("crash", 3, None), ("crash", 3, None), ("crash", 3, None),
        ("deaf", None, "SIGKILL"), ("hang", None, "SIGKILL"), ("nope", None, None),
    ]  # fmt: skip
    then = [one["sequel"]["state"] for one in listed["capsules"] if one["worker"] == "crash"]
    assert ["failed", "backoff", "backoff"] == then
    assert 8 == len(place.tell("postmortem", "--list").out.splitlines())

    hang = place.tell("postmortem", "hang", "--json").json
    assert KEYS == list(hang)
    assert "its event loop is blocked" in hang["reason"]
    frames = [
        frame["function"] for thread in hang["stacks"]["threads"] for frame in thread["frames"]
    ]
    assert "Hang.blocks_here" in frames or "blocks_here" in frames
    deaf = place.tell("postmortem", "deaf")
    assert "a command had told it to end" in deaf.out
    assert "blocks_here" in deaf.out

    boom = place.tell("postmortem", "boom")
    assert boom.out.startswith("boom exited with code 7 at ")
    assert "red text \\u202eend" in boom.out
    assert "\x1b" not in boom.out
    log = place.tell("postmortem", "boom", "--json").json["log"]
    assert "red \x1b[31mtext\x1b]0;title\x07 \u202eend" in [line["text"] for line in log]
    assert "cannot be started" in place.tell("postmortem", "nope").out

    for words, code in ((("bom",), 2), (("calm",), 1), (("--run", "9"), 2)):
        assert code == place.tell("postmortem", *words).code
    path = next(cli.state.glob("pbus/clinic-*/capsules/*-deaf.json"))
    path.write_text("{")
    newest = place.tell("postmortem", "--json")
    assert "deaf" != json.loads(newest.out)["worker"]
    assert f"{path} is left out: it is no capsule" in newest.err


def test_capsules_belong_to_one_project_and_run(cli: CliEnv) -> None:
    """A worker of the same name elsewhere has none of them; a killed process has its signal."""
    text = "name: ward\nworkers: {x: {command: [sh, -c, 'echo $$ > pid; exec sleep 600']}}\n"
    place, twin = (cli.place(name, {"topology.yaml": text}) for name in ("ward", "other"))
    place.up()
    twin.up()
    place.rows()
    pid = place.rows()["x"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: place.tell("postmortem", "x").code == 0)
    found = place.tell("postmortem", "x", "--json").json
    assert (pid, "SIGKILL", 1, "backoff") == (
        found["pid"], found["signal"], found["run"], found["sequel"]["state"],
    )  # fmt: skip
    assert 1 == twin.tell("postmortem", "x").code
    for one in (place, twin):
        assert 0 == one.run("down", "--purge").code
    assert 1 == place.tell("postmortem").code
