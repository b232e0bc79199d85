"""`pbus jobs` and `pbus cancel`: what is open, who does not answer, and giving one up."""

from typing import Any

import psutil
import pytest

from support.command import Command, Place, wait_for

pytestmark = pytest.mark.cli


def asked(town: Place, *options: str) -> Command:
    """A job that goes on until it is cancelled; it has begun."""
    command = town.start("send", "clerk", "--job", "endless", "--wait", *options)
    command.until('update: {"step":1}')
    return command


def open_jobs(town: Place) -> list[dict[str, Any]]:
    """The jobs of the town that nobody else's test asked for."""
    jobs: list[dict[str, Any]] = town.run("jobs", "--json").json["jobs"]
    return [job for job in jobs if job["name"] == "endless"]


def cancels(town: Place) -> int:
    """How often the clerk was cancelled."""
    return town.logs("clerk").count("endless was cancelled")


def test_open_job_is_listed(town: Place):
    """With its name, who asked whom, its age and how far it is."""
    command = asked(town)
    (job,) = open_jobs(town)
    table = town.run("jobs")
    command.end()

    keys = ["id", "name", "requester", "worker", "state", "age_s", "progress", "label"]
    assert keys == list(job)
    assert ("clerk", "running", None) == (job["worker"], job["state"], job["progress"])
    assert job["requester"].startswith("cli-")
    assert job["age_s"] > 0
    assert table.out.splitlines()[0].split()[:4] == ["JOB", "NAME", "REQUESTER", "WORKER"]
    assert job["id"] in table.out
    wait_for(lambda: open_jobs(town) == [])


def test_job_is_cancelled_for_another(town: Place):
    """The requester learns it, and so does the worker."""
    before = cancels(town)
    command = asked(town)
    (job,) = open_jobs(town)
    done = town.run("cancel", job["id"], "--reason", "no longer wanted")
    ended = command.done()

    assert (0, f"job {job['id']} is cancelled\n") == (done.code, done.err)
    assert 1 == ended.code
    assert "no longer wanted" in ended.err
    wait_for(lambda: cancels(town) == before + 1)
    again = town.run("cancel", job["id"])
    assert 1 == again.code
    assert f"there is no open job '{job['id']}'" in again.err


def test_silent_runner_is_named(town: Place):
    """Who does not answer within a second is said, and the others are listed all the same."""
    clerk = psutil.Process(town.rows()["guest"]["pid"])
    command = asked(town)
    clerk.suspend()
    try:
        done = town.run("jobs", "--json")
        table = town.run("jobs")
    finally:
        clerk.resume()
        command.end()

    assert ["endless"] == [job["name"] for job in done.json["jobs"]]
    assert [["guest"]] == [one["workers"] for one in done.json["silent"]]
    assert done.json["silent"][0]["runner"] in table.err
    assert "(guest) did not answer" in table.err


def test_killed_requester_is_noticed(town: Place):
    """A command that was killed cannot cancel; its job ends when its time is up."""
    before = cancels(town)
    command = asked(town, "--timeout", "1")
    command.kill()

    wait_for(lambda: cancels(town) == before + 1)
