"""`pbus jobs` and `pbus cancel`: what is open, who does not answer, and giving one up."""

from typing import Any

import psutil
import pytest

from support.cli_env import Command, Place, wait_for

pytestmark = pytest.mark.cli

BEGUN = 'update: {"step":1}'


def asked(town: Place) -> Command:
    """A job that goes on until it is cancelled; it has begun."""
    command = town.start("send", "clerk", "--job", "endless", "--wait")
    command.until(BEGUN)
    return command


def endless_jobs(town: Place) -> list[dict[str, Any]]:
    """The jobs of the town that this test asked for."""
    return [job for job in open_jobs(town, [])["jobs"] if job["name"] == "endless"]


def open_jobs(town: Place, silent: list[str]) -> dict[str, Any]:
    """The open jobs, once exactly these runners are too late to answer."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = town.tell("jobs", "--json").json
        workers = [worker for one in found["silent"] for worker in one["workers"]]
        return found if workers == silent else None

    return wait_for(look)


def cancels(town: Place, worker: str = "clerk") -> int:
    """How often a worker was cancelled."""
    return town.logs(worker).count("endless was cancelled")


def test_open_job_is_listed(town: Place):
    """With its name, requester, worker, age and progress."""
    command = asked(town)
    (job,) = endless_jobs(town)
    table = wait_for(lambda: job["id"] in (done := town.run("jobs")).out and done)
    command.end()

    keys = ["id", "name", "requester", "worker", "state", "age_s", "progress", "label"]
    assert keys == list(job)
    assert ("clerk", "running", None) == (job["worker"], job["state"], job["progress"])
    assert job["requester"].startswith("cli-")
    assert job["age_s"] > 0
    assert table.out.splitlines()[0].split()[:4] == ["JOB", "NAME", "REQUESTER", "WORKER"]
    wait_for(lambda: endless_jobs(town) == [])


def test_job_is_cancelled_for_another(town: Place):
    """The requester learns it, and so does the worker."""
    before = cancels(town)
    command = asked(town)
    (job,) = endless_jobs(town)
    done = town.run("cancel", job["id"], "--reason", "no longer wanted")
    ended = command.done()

    assert (0, f"job {job['id']} is cancelled\n") == (done.code, done.err)
    assert 1 == ended.code
    assert "no longer wanted" in ended.err
    wait_for(lambda: cancels(town) == before + 1)
    again = town.tell("cancel", job["id"])
    assert 1 == again.code
    assert f"there is no open job '{job['id']}'" in again.err


def test_silent_runner_is_named(town: Place):
    """Who does not answer within a second is said, and the others are listed all the same."""
    clerk = psutil.Process(town.rows()["guest"]["pid"])
    command = asked(town)
    clerk.suspend()
    try:
        found = open_jobs(town, ["guest"])
        table = town.tell("jobs")
    finally:
        clerk.resume()
        command.end()

    assert ["endless"] == [job["name"] for job in found["jobs"]]
    assert found["silent"][0]["runner"] in table.err
    assert "(guest) did not answer" in table.err
    town.until(lambda rows: rows["guest"]["ready"])


def test_killed_requester_is_noticed(town: Place):
    """A command that was killed cannot cancel; its job ends when its time is up."""
    # Where a second is too short for a job to begin, another worker has longer.
    for worker, seconds in (("clerk", "1"), ("post.1", "5"), ("post.2", "20")):
        before = cancels(town, worker)
        ask = ("send", worker, "--job", "endless", "--wait", "--timeout", seconds)
        command = town.start(*ask)
        wait_for(lambda: command.process.poll() is not None or BEGUN in command.err)  # noqa: B023 - it is over in this turn
        if BEGUN in command.err:
            break
    command.kill()

    wait_for(lambda: cancels(town, worker) == before + 1)


def test_exit_in_a_handler_ends_no_process(town: Place):
    """The requester is told, the log says what to do, and the same process does the next job."""
    before = town.rows()["clerk"]["pid"]
    left = town.run("send", "clerk", "--job", "leave", "--wait")
    greeted = town.tell("send", "clerk", "--job", "greet", "--wait")

    assert 1 == left.code
    assert "SystemExit: the handler of job 'leave' called sys.exit(3)" in left.err
    assert 0 == greeted.code
    assert before == town.rows()["clerk"]["pid"]
    assert any("`await self.end()` ends the session" in line for line in town.logs("clerk"))
