"""`pbus stack`: of workers of any kind, in text and JSON, and what is said of the others."""

import pytest

from support.cli_env import CliEnv, Place

pytestmark = pytest.mark.cli

KEYS = ["worker", "pid", "host", "threads", "tasks", "left_out", "error"]
MEMORY = """
bus: {backend: memory}
workers:
  clerk: {worker: 'workers:Clerk'}
  boss: {worker: 'workers:Clerk'}
"""
WORKERS = """
import asyncio
from pbus import BaseWorker

class Clerk(BaseWorker):
    async def on_activated(self, args):
        print("waits", self.name, flush=True)
        await asyncio.Event().wait()
"""


def test_workers_and_programs_that_join(sample: Place):
    """A class, replicas and a script on the bus have stacks, by their own processes."""
    rows = sample.rows()
    for name, workers in (("clerk", ["clerk"]), ("post", ["post.1", "post.2"]), ("hand", ["hand"])):
        done = sample.run("stack", name, "--json")
        assert (0, "") == (done.code, done.err)
        found = done.json["workers"]
        assert workers == [one["worker"] for one in found]
        assert [KEYS] * len(found) == [list(one) for one in found]
        assert [rows[worker]["pid"] for worker in workers] == [one["pid"] for one in found]
        for one in found:
            assert f"pbus worker {one['worker']}" in [task["name"] for task in one["tasks"]]
            assert "MainThread" in [thread["name"] for thread in one["threads"]]
    after = sample.rows()  # none was restarted by it
    assert [row["restarts"] for row in rows.values()] == [after[name]["restarts"] for name in rows]


def test_text_and_refusals(sample: Place):
    """Text is one block a process; a program that has no runner is not disturbed."""
    done = sample.run("stack", "hand")
    assert 0 == done.code
    pid = sample.rows()["hand"]["pid"]
    assert done.out.startswith(f"hand, pid {pid}: its event loop waits; ")
    assert "\nthread MainThread\n" in done.out
    assert "hand.py:" in done.out
    done = sample.run("stack", "bell")
    assert (1, "") == (done.code, done.out)
    assert "bell: no stacks of process" in done.err
    assert "py-spy dump --pid" in done.err
    assert sample.rows()["bell"]["ready"]
    done = sample.run("stack", "bel")
    assert (2, True) == (done.code, "did you mean" in done.err)


def test_project_in_one_process(cli: CliEnv):
    """Without a broker the project's one process answers for each of its workers."""
    place = cli.place("memory", {"topology.yaml": MEMORY, "workers.py": WORKERS})
    command = place.start("up")
    command.until("waits boss")
    done = place.run("stack", "clerk")
    assert 0 == done.code
    assert f"clerk, pid {command.process.pid}: " in done.out
    assert "task boss on_activated waits for a future" in done.out
    assert "workers.py:8 Clerk.on_activated" in done.out
    done = place.run("stack", "clark")
    assert (2, True) == (done.code, "clerk" in done.err)
    command.end()
