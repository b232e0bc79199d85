"""Early cancels, replicas, turns and names: the small parts of a worker."""

import asyncio
from types import SimpleNamespace

import pytest

from pbus.bus.local.lane_hold import LaneHold, lending
from pbus.errors import WorkerNameError
from pbus.jobs.executor.running import PendingCancels
from pbus.jobs.replicas import Replicas
from pbus.messages import BusJobCancelMessage, BusJobRequestMessage
from pbus.registry import WorkerReadyData
from pbus.workers.core import check_name
from support.waiting import PATIENCE_S, run


def cancel(job_id, source="asker"):
    return BusJobCancelMessage(source=source, target="doer", job_id=job_id, reason=f"why {job_id}")


def request(job_id, source="asker"):
    return BusJobRequestMessage(source=source, target="doer", job_id=job_id)


def test_early_cancel_is_taken_once():
    """A cancel that came first is remembered for the request of the same requester."""
    cancels = PendingCancels()
    cancels.note(cancel("j-1"))
    assert (False, None) == cancels.take(request("j-1", source="stranger"))
    assert (True, "why j-1") == cancels.take(request("j-1"))
    assert (False, None) == cancels.take(request("j-1"))


def test_early_cancels_grow_old():
    """Cancels whose request never came are forgotten."""
    now = [0.0]
    cancels = PendingCancels(clock=lambda: now[0])
    cancels.note(cancel("j-1"))
    now[0] = 61.0
    cancels.note(cancel("j-2"))
    assert ((False, None), 1) == (cancels.take(request("j-1")), len(cancels))


def test_early_cancels_are_bounded():
    """However many come, only so many are kept."""
    cancels = PendingCancels(clock=lambda: 0.0)
    for number in range(10_050):
        cancels.note(cancel(f"j-{number}"))
    assert 10_000 == len(cancels)
    assert (True, "why j-10049") == cancels.take(request("j-10049"))


def registry_of(*names, inactive=()):
    """A registry with the ready replicas of one group, or workers."""
    data = {name: WorkerReadyData(name, "runner", f"i-{name}") for name in names}

    def replicas(name):
        found = [data[name]] if name in data else []
        return found or [each for each in data.values() if each.worker_name.startswith(f"{name}.")]

    return SimpleNamespace(
        get=lambda name: (replicas(name) or [None])[0],
        ready=lambda name: [each for each in replicas(name) if each.worker_name not in inactive],
        local_workers=list(names),
        remote_workers=[],
    )


def choices(replicas, name, count):
    return [replicas.choose(name).worker_name for _ in range(count)]


def test_replicas_take_turns():
    """With equal work, replicas are chosen in turn."""
    replicas = Replicas(registry_of("x.1", "x.2", "x.3"))
    assert ["x.1", "x.2", "x.3", "x.1"] == choices(replicas, "x", 4)


def test_idle_replica_is_chosen():
    """Fewest open jobs first."""
    replicas = Replicas(registry_of("x.1", "x.2"))
    replicas.begin("x.2")
    replicas.begin("x.2")
    replicas.begin("x.1")
    assert ["x.1", "x.1"] == choices(replicas, "x", 2)
    replicas.end("x.2")
    replicas.end("x.2")
    assert ["x.2"] == choices(replicas, "x", 1)


def test_inactive_replicas_come_last():
    """Inactive replicas are passed over, unless there is no other."""
    replicas = Replicas(registry_of("x.1", "x.2", inactive={"x.1"}))
    assert ["x.2", "x.2"] == choices(replicas, "x", 2)
    nobody = Replicas(registry_of("x.1", inactive={"x.1"}))
    assert ["x.1"] == choices(nobody, "x", 1)


def test_group_is_all_its_replicas():
    """A group's name stands for all replicas, a worker's for itself, another for nobody."""
    replicas = Replicas(registry_of("x.1", "x.2", "y"))
    assert (["x.1", "x.2"], ["y"], []) == tuple(map(replicas.all_of, ("x", "y", "z")))
    assert replicas.choose("z") is None


def test_turn_is_over_with_handler():
    """A turn lasts until its handler ends."""

    async def main():
        turn, gate = LaneHold(), asyncio.Event()
        task = turn.start(gate.wait(), "handler")
        assert not await turn.over(0.01)
        gate.set()
        assert await turn.over(PATIENCE_S)
        await task

    run(main())


def test_turn_can_be_lent():
    """A handler, or a task that it started, lets the lane go on while it waits."""

    async def main():
        lent, gate = [], asyncio.Event()

        async def inner():
            with lending():
                await gate.wait()

        async def handler():
            await asyncio.create_task(inner())

        turn = LaneHold(on_over=lambda: lent.append(True))
        task = turn.start(handler(), "handler")
        assert await turn.over(PATIENCE_S)
        assert ([True], False) == (lent, task.done())
        gate.set()
        await task
        with lending():  # no turn here: nothing happens
            pass

    run(main())


@pytest.mark.parametrize("name", ["x", "_x", "x-1", "X_y", "x.1", "x.12"])
def test_names_that_can_be_addressed(name):
    """Letters, digits, underscores, dashes; a number behind a dot for a replica."""
    assert name == check_name(name)


@pytest.mark.parametrize("name", ["1x", "x y", "x.", "x.y", "x@y", "x\n", "é", 7, "-x"])
def test_names_that_cannot(name):
    """Other names are refused."""
    with pytest.raises(WorkerNameError):
        check_name(name)
