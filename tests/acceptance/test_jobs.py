"""`pbus jobs` and `pbus cancel`: what is open, who does not answer, and giving one up."""

from typing import Any

import psutil
import pytest

from support.cli_env import Command, Place, wait_for

pytestmark = pytest.mark.cli

BEGUN = 'update: {"step":1}'


def asked(sample: Place) -> Command:
    """A job that goes on until it is cancelled; it has begun."""
    command = sample.start("send", "clerk", "--job", "endless", "--wait")
    command.until(BEGUN)
    return command


def endless_jobs(sample: Place) -> list[dict[str, Any]]:
    """The jobs of the sample that this test asked for."""
    return [job for job in open_jobs(sample, [])["jobs"] if job["name"] == "endless"]


def open_jobs(sample: Place, silent: list[str]) -> dict[str, Any]:
    """The open jobs, once exactly these runners are too late to answer."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = sample.tell("jobs", "--json").json
        workers = [worker for one in found["silent"] for worker in one["workers"]]
        return found if workers == silent else None

    return wait_for(look)


def cancels(sample: Place, worker: str = "clerk") -> int:
    """How often a worker was cancelled."""
    return sample.logs(worker).count("endless was cancelled")


def test_open_job_is_listed(sample: Place):
    """With its name, requester, worker, age and progress."""
    command = asked(sample)
    (job,) = endless_jobs(sample)
    table = wait_for(lambda: job["id"] in (done := sample.run("jobs")).out and done)
    command.end()

    keys = ["id", "name", "requester", "worker", "state", "age_s", "progress", "label"]
    assert keys == list(job)
    assert ("clerk", "running", None) == (job["worker"], job["state"], job["progress"])
    assert job["requester"].startswith("cli-")
    assert job["age_s"] > 0
    assert table.out.splitlines()[0].split()[:4] == ["JOB", "NAME", "REQUESTER", "WORKER"]
    wait_for(lambda: endless_jobs(sample) == [])


def test_job_is_cancelled_for_another(sample: Place):
    """The requester learns it, and so does the worker."""
    before = cancels(sample)
    command = asked(sample)
    (job,) = endless_jobs(sample)
    done = sample.run("cancel", job["id"], "--reason", "no longer wanted")
    ended = command.done()

    assert (0, f"job {job['id']} is cancelled\n") == (done.code, done.err)
    assert 1 == ended.code
    assert "no longer wanted" in ended.err
    wait_for(lambda: cancels(sample) == before + 1)
    again = sample.tell("cancel", job["id"])
    assert 1 == again.code
    assert f"there is no open job '{job['id']}'" in again.err


def test_silent_runner_is_named(sample: Place):
    """Who does not answer within a second is said, and the others are listed all the same."""
    clerk = psutil.Process(sample.rows()["guest"]["pid"])
    command = asked(sample)
    clerk.suspend()
    try:
        found = open_jobs(sample, ["guest"])
        table = sample.tell("jobs")
    finally:
        clerk.resume()
        command.end()

    assert ["endless"] == [job["name"] for job in found["jobs"]]
    assert found["silent"][0]["runner"] in table.err
    assert "(guest) did not answer" in table.err
    sample.until(lambda rows: rows["guest"]["ready"])


def test_killed_requester_is_noticed(sample: Place):
    """A command that was killed cannot cancel; its job ends when its time is up."""
    # Where a second is too short for a job to begin, another worker has longer.
    for worker, seconds in (("clerk", "1"), ("post.1", "5"), ("post.2", "20")):
        before = cancels(sample, worker)
        ask = ("send", worker, "--job", "endless", "--wait", "--timeout", seconds)
        command = sample.start(*ask)
        wait_for(lambda: command.process.poll() is not None or BEGUN in command.err)  # noqa: B023 - it is over in this turn
        if BEGUN in command.err:
            break
    command.kill()

    wait_for(lambda: cancels(sample, worker) == before + 1)


def test_exit_in_a_handler_ends_no_process(sample: Place):
    """The requester is told, the log says what to do, and the same process does the next job."""
    before = sample.rows()["clerk"]["pid"]
    left = sample.run("send", "clerk", "--job", "leave", "--wait")
    greeted = sample.tell("send", "clerk", "--job", "greet", "--wait")

    assert 1 == left.code
    assert "SystemExit: the handler of job 'leave' called sys.exit(3)" in left.err
    assert 0 == greeted.code
    assert before == sample.rows()["clerk"]["pid"]
    assert any("`await self.end()` ends the session" in line for line in sample.logs("clerk"))
