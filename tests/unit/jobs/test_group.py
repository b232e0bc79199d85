"""JobGroup: who was asked, who answered what, whether it is over."""

import pytest

from pbus.errors import (
    JobCancelledError,
    JobFailedError,
    JobTimeoutError,
    JobWorkerLostError,
)
from pbus.jobs.group import STOPPED, JobGroup, name_some
from pbus.jobs.params import JobGroupParams, JobParams, as_group, choose_params
from pbus.messages import JobStatus


def group_of(*names, **params):
    group = JobGroup("j-1", names, JobGroupParams(**params))
    for member in group.members.values():
        member.is_asked = True
    return group


def answer(group, name, status=JobStatus.COMPLETED, data=None, events=0):
    group.answer(group.members[name], status, data, events)


def test_group_ends_with_last_answer():
    """A group is over when everyone has answered."""
    group = group_of("a", "b")
    answer(group, "a", data={"n": 1})
    assert (False, {"a": "completed", "b": "open"}) == (group.is_done, group.statuses)
    answer(group, "b")
    assert (True, None) == (group.is_done, group.error)
    assert {"a": {"n": 1}, "b": {}} == group.responses


def test_names_are_asked_once():
    """A name given twice is one member."""
    assert ["a", "b"] == group_of("a", "b", "a").worker_names


@pytest.mark.parametrize("status", [JobStatus.ERROR, JobStatus.FAILED])
def test_failure_ends_group(status):
    """The first failure ends the group, and its error knows how all stand."""
    group = group_of("a", "b")
    answer(group, "a", status, {"error": "no such book"})
    assert isinstance(group.error, JobFailedError)
    assert ({"a": status.value, "b": "open"}) == group.error.statuses
    assert (status.value, {"error": "no such book"}) == (group.error.status, group.error.response)


def test_failure_may_be_kept():
    """Without cancel_on_error the group goes on, and keeps every status."""
    group = group_of("a", "b", cancel_on_error=False)
    answer(group, "a", JobStatus.FAILED, {"why": "no"})
    assert not group.is_done
    answer(group, "b")
    assert (True, None) == (group.is_done, group.error)
    assert (JobStatus.FAILED, {"why": "no"}) == (group.responses["a"].status, group.responses["a"])


def test_cancelled_is_an_error():
    """An answer with status cancelled is no success."""
    group = group_of("a")
    answer(group, "a", JobStatus.CANCELLED, {"reason": "not today"})
    assert isinstance(group.error, JobCancelledError)
    assert "not today" == group.error.reason


def test_stopping_worker_is_a_loss():
    """An answer that only says that the worker stops counts as its loss."""
    group = group_of("a")
    answer(group, "a", JobStatus.CANCELLED, {"type": STOPPED, "error": "worker 'a' stopped"})
    assert isinstance(group.error, JobWorkerLostError)
    assert "worker 'a' stopped" == group.error.reason


def test_loss_keeps_its_reason():
    """A lost worker's part has an answer that says so."""
    group = group_of("a", "b", cancel_on_error=False)
    group.mark_worker_lost(group.members["a"], "killed")
    assert (JobStatus.ERROR, "JobWorkerLostError") == (
        group.responses["a"].status,
        group.responses["a"]["type"],
    )


def test_late_answer_of_the_stopped():
    """Where a kept job's worker is not there when time is up, that is said."""
    group = group_of("a", "b", timeout=2)
    for member in group.members.values():
        member.is_stored = True
    group.expire(lambda name: name == "a")
    assert "waiting for b, which was stopped and did not come back" == group.error.phase


def test_timeout_says_what_it_waited_for():
    """A group that runs out of time tells a missing worker from a missing answer."""
    group = group_of("a", "b", timeout=2)
    group.members["b"].is_asked = False
    group.expire()
    assert isinstance(group.error, JobTimeoutError)
    assert "waiting for b to be ready" == group.error.phase
    both = group_of("a", "b", timeout=2)
    both.members["a"].is_asked = both.members["b"].is_asked = False
    both.expire(lambda name: name == "a")
    assert "waiting for b to be ready" == both.error.phase
    other = group_of("a", "b", timeout=2)
    answer(other, "b")
    other.expire()
    assert "waiting for the answer of a" == other.error.phase


def test_first_end_counts():
    """A group ends once."""
    group = group_of("a")
    group.cancel("enough")
    group.expire()
    assert isinstance(group.error, JobCancelledError)


def test_settled_when_events_seen():
    """A group with events still on their way is over, but not settled."""
    group = group_of("a")
    answer(group, "a", events=2)
    member = group.members["a"]
    assert (True, False, 2) == (group.is_done, group.is_settled, group.missing_events)
    member.seen = 2
    assert (True, 0) == (group.is_settled, group.missing_events)


def test_failed_group_is_settled():
    """Events of a group that failed are not waited for."""
    group = group_of("a", "b")
    answer(group, "a", JobStatus.ERROR, events=9)
    assert group.is_settled


def test_empty_group_is_over():
    """An empty group is over at once."""
    group = group_of()
    assert (True, {}) == (group.is_done, group.responses)


def test_params_from_keywords():
    """Params are given, or made of keywords; not both, and no unknown ones."""
    params = JobParams(name="x", timeout=None)
    assert params == choose_params(JobParams, None, {"name": "x", "timeout": None})
    assert params is choose_params(JobParams, params, {})
    with pytest.raises(TypeError, match="not both"):
        choose_params(JobParams, params, {"name": "y"})
    with pytest.raises(TypeError, match="nmae"):
        choose_params(JobParams, None, {"nmae": "y"})
    assert JobGroupParams(name="x", timeout=None) == as_group(params)


def test_many_names_are_shortened():
    """A message about many workers names a few."""
    assert "a, b" == name_some(["a", "b"])
    assert "a, b, c and 2 more" == name_some(["a", "b", "c", "d", "e"])
