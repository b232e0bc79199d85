"""A worker that failed, waits to be started again or is replaced says why, everywhere."""

import json
import re

import pytest

from support.cli_env import CliEnv, Place

pytestmark = pytest.mark.cli

WORKERS = """
from pbus import BaseWorker

class Fine(BaseWorker):
    pass

class Raising(BaseWorker):
    async def start(self):
        raise ValueError("no such model")
"""
SLOWLY = "{policy: on-failure, backoff: {initial: 600s, max: 600s}}"
# Each worker with what must be said of it, and the state in which it stays.
WORKERS_AND_REASONS = {
    "code": (
        f"command: [sh, -c, 'echo boom >&2; exit 3']\n    restart: {SLOWLY}",
        "backoff",
        "exited with code 3: boom",
    ),
    "once": (
        "command: [sh, -c, 'echo bad; exit 4']\n    restart: never",
        "failed",
        "exited with code 4: bad",
    ),
    "signal": (
        f"command: [sh, -c, 'echo dying >&2; kill -SEGV $$$$']\n    restart: {SLOWLY}",
        "backoff",
        "was killed by SIGSEGV: dying",
    ),
    "raising": (
        f"worker: 'workers:Raising'\n    restart: {SLOWLY}",
        "backoff",
        "exited with code 1: ValueError: no such model",
    ),
    "looping": (
        (
            "command: [sh, -c, 'echo again >&2; exit 5']\n"
            "    restart: {policy: always, backoff: {initial: 50ms}, max: 2}"
        ),
        "failed",
        "exited with code 5, 2 times within ",
    ),
    "module": (
        "worker: 'broken:Any'",
        "failed",
        (
            "its class cannot be loaded: error: worker 'broken:Any' cannot be loaded: importing broken"
            " raised ModuleNotFoundError: No module named 'does_not_exist'"
        ),
    ),
    "class": (
        "worker: 'workers:Missing'",
        "failed",
        "its class cannot be loaded: error: worker 'workers:Missing' cannot be loaded: ",
    ),
    "program": (
        "command: [no-such-program]",
        "failed",
        "cannot be started: No such file or directory: no-such-program",
    ),
    "late": (
        f"command: [sleep, '600']\n    ready: {{log: never, timeout: 500ms}}\n    restart: {SLOWLY}",
        "backoff",
        "not ready within 0.5 s: no line matches 'never'",
    ),
    "sick": (
        (
            "command: [sleep, '600']\n"
            "    health: {exec: [sh, -c, 'echo ill; exit 2'], every: 50ms, failures: 2}\n"
            f"    restart: {SLOWLY}"
        ),
        "backoff",
        "unhealthy, 2 checks failed: exec sh: exit code 2: ill",
    ),
}


def sick_bay(cli: CliEnv) -> Place:
    """A project in which all but one worker are in trouble, each in its own way."""
    sections = "".join(
        f"  {name}:\n    {keys}\n" for name, (keys, _, _) in WORKERS_AND_REASONS.items()
    )
    topology = f"workers:\n  fine: {{worker: 'workers:Fine'}}\n{sections}"
    files = {
        "topology.yaml": topology,
        "workers.py": WORKERS,
        "broken.py": "import does_not_exist\n",
    }
    return cli.place("reasons", files)


def test_every_cause_is_said_everywhere(cli: CliEnv):
    """`up --wait`, `ps`, its JSON and the events have the exit, signal or verdict, and the last line."""
    place = sick_bay(cli)
    up = place.run("up", "-d", "--wait")
    assert 1 == up.code
    failed = dict(re.findall(r"worker '(.+?)' failed: (.*)", up.err))
    assert {"once", "module", "class", "program"} <= failed.keys()
    for name, text in failed.items():
        assert text.startswith(re.split("[:,] ", WORKERS_AND_REASONS[name][2])[0]), name
    following = place.start("events", "--json")
    rows = place.until(
        lambda rows: all(rows[name]["state"] == state for name, (_, state, _) in reasons())
    )
    for name, (_, _, reason) in reasons():
        assert reason in rows[name]["error"], name
    assert rows["fine"]["error"] is None

    table = place.run("ps").out
    for name, (_, _, reason) in reasons():
        assert f"\n{name}: {reason}" in table

    done = place.run("restart", *WORKERS_AND_REASONS)
    assert 1 == done.code
    place.until(lambda rows: all(rows[name]["state"] == state for name, (_, state, _) in reasons()))
    place.run("stop", "fine")
    following.until('"worker":"fine","state":"exited"')
    told = [json.loads(line) for line in following.end().out.splitlines()]
    for name, (_, state, reason) in reasons():
        details = [one["detail"] for one in told if (one["worker"], one["state"]) == (name, state)]
        assert any(reason in detail for detail in details), (name, details)
    place.run("down", "--timeout", "1")


def reasons():
    """The workers in trouble, each with keys, state and reason."""
    return list(WORKERS_AND_REASONS.items())
