"""Who of a worker's jobs runs and who waits: places, turns, urgency."""

import random
from dataclasses import dataclass

import pytest

from pbus.jobs.executor.limiter import ConcurrencyLimiter


@dataclass(frozen=True)
class Job:
    name: str
    serial_key: str | None = None
    is_urgent: bool = False


def names(jobs):
    return [job.name for job in jobs]


def test_without_places_all_run():
    """Jobs that share no serial key do not wait."""
    limiter = ConcurrencyLimiter()
    assert [True] * 100 == [limiter.acquire(Job(str(n))) for n in range(100)]


def test_places_go_in_order():
    """A job that ends makes room for the one that waits longest."""
    limiter = ConcurrencyLimiter(2)
    jobs = [Job(str(n)) for n in range(5)]
    assert [True, True, False, False, False] == [limiter.acquire(job) for job in jobs]
    next_jobs = [
        limiter.release(jobs[1]),
        limiter.release(jobs[0]),
        limiter.release(jobs[2]),
        limiter.release(jobs[3]),
    ]
    assert ["2", "3", "4"] == names(next_jobs[:3])
    assert next_jobs[3] is None


def test_urgent_ones_go_first():
    """Among those who wait, not before those who run."""
    limiter = ConcurrencyLimiter(1)
    first, normal = Job("first"), Job("normal")
    urgent, later = Job("urgent", is_urgent=True), Job("later", is_urgent=True)
    for job in (first, normal, urgent, later):
        limiter.acquire(job)
    order = []
    job = first
    while (job := limiter.release(job)) is not None:
        order.append(job.name)
    assert ["urgent", "later", "normal"] == order


def test_turns_are_taken_singly():
    """Those of one key run one at a time; others pass them by."""
    limiter = ConcurrencyLimiter(2)
    a1, a2, b = Job("a1", "a"), Job("a2", "a"), Job("b")
    assert [True, False, True] == [limiter.acquire(job) for job in (a1, a2, b)]
    assert limiter.release(b) is None  # there is a place, but it is not a2's turn
    assert a2 is limiter.release(a1)


def test_free_place_is_given_past_blocked():
    """A job whose turn it is not keeps no place from another."""
    limiter = ConcurrencyLimiter(2)
    a1, a2, c, d = Job("a1", "a"), Job("a2", "a"), Job("c"), Job("d")
    assert [True, False, True, False] == [limiter.acquire(job) for job in (a1, a2, c, d)]
    assert d is limiter.release(c)
    assert a2 is limiter.release(a1)


def test_withdrawn_ones_are_skipped():
    """Who waits no longer is given no place."""
    limiter = ConcurrencyLimiter(1)
    first, second, third = Job("1"), Job("2"), Job("3")
    for job in (first, second, third):
        limiter.acquire(job)
    assert [True, False] == [limiter.withdraw(second), limiter.withdraw(second)]
    assert not limiter.withdraw(first)
    assert third is limiter.release(first)


def test_cleared_line_has_no_next_jobs():
    """After the end no job begins."""
    limiter = ConcurrencyLimiter(1)
    first, second = Job("1"), Job("2")
    limiter.acquire(first)
    limiter.acquire(second)
    limiter.clear()
    assert limiter.release(first) is None


@pytest.mark.parametrize("places", [None, 1, 3])
def test_random_use_loses_none(places):
    """Everybody gets a place in the end, never more than there are, one of each key at a time."""
    chance = random.Random(places or 0)
    limiter, running, waiting, done = ConcurrencyLimiter(places), [], [], 0
    jobs = [
        Job(str(n), chance.choice([None, None, "a", "b"]), chance.random() < 0.3)
        for n in range(500)
    ]
    for job in jobs:
        (running if limiter.acquire(job) else waiting).append(job)
        while running and chance.random() < 0.5:
            done += 1
            next_job = limiter.release(running.pop(chance.randrange(len(running))))
            if next_job is not None:
                waiting.remove(next_job)
                running.append(next_job)
        keys = [job.serial_key for job in running if job.serial_key]
        assert len(keys) == len(set(keys))
        assert places is None or len(running) <= places
    while running:
        done += 1
        next_job = limiter.release(running.pop())
        if next_job is not None:
            waiting.remove(next_job)
            running.append(next_job)
    assert (500, []) == (done, waiting)
