"""Cancels that come before the request of their job."""

from pbus.jobs.executor.running import PendingCancels
from pbus.messages import BusJobCancelMessage, BusJobRequestMessage


def cancel(job_id, source="asker"):
    return BusJobCancelMessage(source=source, target="doer", job_id=job_id, reason=f"why {job_id}")


def request(job_id, source="asker"):
    return BusJobRequestMessage(source=source, target="doer", job_id=job_id)


def test_early_cancel_is_taken_once():
    """A cancel that came first is remembered for the request of the same requester."""
    cancels = PendingCancels()
    cancels.add(cancel("j-1"))
    assert (False, None) == cancels.take(request("j-1", source="stranger"))
    assert (True, "why j-1") == cancels.take(request("j-1"))
    assert (False, None) == cancels.take(request("j-1"))


def test_early_cancels_grow_old():
    """Cancels whose request never came are forgotten."""
    now = [0.0]
    cancels = PendingCancels(clock=lambda: now[0])
    cancels.add(cancel("j-1"))
    now[0] = 61.0
    cancels.add(cancel("j-2"))
    assert ((False, None), 1) == (cancels.take(request("j-1")), len(cancels))


def test_early_cancels_are_bounded():
    """However many come, only so many are kept."""
    cancels = PendingCancels(clock=lambda: 0.0)
    for number in range(10_050):
        cancels.add(cancel(f"j-{number}"))
    assert 10_000 == len(cancels)
    assert (True, "why j-10049") == cancels.take(request("j-10049"))
