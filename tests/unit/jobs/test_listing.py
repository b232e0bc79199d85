"""Open jobs as two sides tell of them, folded into one list, and the list as it is shown."""

from types import SimpleNamespace

import pytest

from pbus.client.job_listing import OpenJobsResult, SilentRunner
from pbus.errors import JobNotFoundError
from pbus.jobs.listing import JobEntry, JobProgress, OpenJobs, merge_jobs, progress_of, short
from pbus_cli.views.tables.job_table import job_lines, progress_text


def entry(job_id="j-1", worker="doer", *, state="running", **fields):
    values = {"wire_id": job_id, "name": "index", "requester": "asker", "age_s": 1.0, **fields}
    return JobEntry(job_id=job_id, worker=worker, state=state, **values)


@pytest.mark.parametrize(
    ("update", "progress"),
    [
        (None, None),
        ({}, None),
        ({"step": 3}, None),
        ({"done": 3}, None),
        ({"done": "3", "total": 4}, None),
        ({"done": True, "total": 4}, None),
        ({"done": 3, "total": 4}, JobProgress(done=3, total=4, percent=75.0)),
        ({"done": 0, "total": 0}, JobProgress(done=0, total=0)),
        ({"percent": 12.5}, JobProgress(percent=12.5)),
        ({"done": 3, "total": 4, "percent": 70}, JobProgress(done=3, total=4, percent=70)),
    ],
)
def test_progress_in_numbers(update, progress):
    """Done and total, or percent; anything else says nothing about how far it is."""
    assert progress == progress_of(update)


def test_both_sides_are_one():
    """The worker knows the state, the requester the job's own id and its label."""
    requested = entry("j-1", wire_id="j-1~2", state="sent", label="nightly", age_s=9.0)
    done = entry("j-1~2", worker="doer@runner-1", progress=JobProgress(percent=5))
    (merged,) = merge_jobs([OpenJobs(requested=(requested,)), OpenJobs(accepted=(done,))])
    found = (merged.job_id, merged.state, merged.label, merged.age_s, merged.progress)
    assert ("j-1", "running", "nightly", 9.0, JobProgress(percent=5)) == found


def test_oldest_job_comes_first():
    """Jobs that only one side told of are listed, too."""
    jobs = OpenJobs(
        requested=(entry("new", state="waiting", age_s=1.0), entry("old", state="sent", age_s=3.0)),
        accepted=(entry("other", age_s=2.0),),
    )
    assert ["old", "other", "new"] == [one.job_id for one in merge_jobs([jobs])]


def test_group_has_entry_per_worker():
    """One id, several workers."""
    requested = tuple(entry("j-1", worker, state="sent") for worker in ("a", "b"))
    merged = merge_jobs([OpenJobs(requested=requested, accepted=(entry("j-1", "b"),))])
    assert {("a", "sent"), ("b", "running")} == {(one.worker, one.state) for one in merged}


def test_long_texts_are_cut():
    """A name is for people."""
    assert (None, "index", 200) == (short(None), short("index"), len(short("x" * 999)))


def test_job_is_found_by_either_id():
    """By its requester's, and by its worker's."""
    found = OpenJobsResult([entry("j-1", wire_id="j-1~2")], [])
    assert ["j-1", "j-1"] == [found.find(job_id).job_id for job_id in ("j-1", "j-1~2")]


def test_unknown_job_names_the_silent():
    """It may be that of a runner that did not answer."""
    with pytest.raises(JobNotFoundError, match="did not answer: runner-1"):
        OpenJobsResult([], [SilentRunner("runner-1", ("doer",))]).find("j-2")
    with pytest.raises(JobNotFoundError, match="pbus jobs"):
        OpenJobsResult([], []).find("j-2")


@pytest.mark.parametrize("width", [None, 120, 60, 30])
def test_jobs_fit_the_width(width):
    """Whatever the terminal's width, the id is there and no line is wider."""
    progress = JobProgress(done=12, total=40, percent=30)
    lines = job_lines([entry(progress=progress, label="nightly")], width)
    assert "JOB" in lines[0].plain
    assert "j-1" in lines[1].plain
    assert width is None or max(line.cell_len for line in lines) <= width
    if width is None:
        assert lines[1].plain.split() == ([
            "j-1",
            "index",
            "asker",
            "doer",
            "running",
            "1s",
            "12/40",
            "30%",
            "nightly",
        ])


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, "-"),
        (SimpleNamespace(done=None, total=None, percent=12.4), "12%"),
        (SimpleNamespace(done=0, total=0, percent=None), "0/0"),
    ],
)
def test_progress_as_text(progress, text):
    """Short, and never false."""
    assert text == progress_text(progress)
