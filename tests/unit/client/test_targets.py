"""The workers that a name stands for, and how long a client waits for them."""

import asyncio
from typing import Any

import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.client.targets import find_targets, in_turn
from pbus.errors import WorkerNotFoundError
from pbus.leases import Lease


def lease(name: str, state: str = "ready", **changes: Any) -> Lease:
    """A registered worker."""
    return Lease(
        name=name, incarnation=f"{name}-1", runner="r", host="h", pid=1, state=state, **changes
    )


async def found(name: str, *leases: Lease, within_s: float = 0.0, **options: bool) -> list[str]:
    """Who is meant by a name when these are registered."""
    async with AsyncQueueBus() as bus:
        for one in leases:
            await bus.leases.claim(one)
        targets = await find_targets(bus, name, within_s=within_s, **options)
    return [one.name for one in targets]


def test_ready_replicas_are_meant() -> None:
    """Of replicas only those that take work now."""
    leases = [
        lease("x.1"), lease("x.2", active=False), lease("x.3", "starting"), lease("x.4"), lease("y"),
    ]  # fmt: skip

    assert ["x.1", "x.4"] == asyncio.run(found("x", *leases))


def test_inactive_by_full_name() -> None:
    """Who is named exactly is meant, active or not."""
    assert ["a"] == asyncio.run(found("a", lease("a", active=False)))


def test_registered_is_second_best() -> None:
    """When none is ready in time, those that are registered get it."""
    assert ["a"] == asyncio.run(found("a", lease("a", "starting")))


def test_orders_reach_all() -> None:
    """Ending or activating `x` means every replica, whatever its state."""
    leases = [lease("x.1"), lease("x.2", active=False), lease("x.3", "starting")]

    assert ["x.1", "x.2", "x.3"] == asyncio.run(found("x", *leases, usable_only=False))


def test_unknown_is_an_error() -> None:
    """No worker of that name in time."""
    with pytest.raises(WorkerNotFoundError, match=r"'x'.*within 0.05 s"):
        asyncio.run(found("x", lease("y"), within_s=0.05))


def test_waits_until_registered() -> None:
    """A worker that comes within the time is found."""

    async def main() -> list[Lease]:
        async with AsyncQueueBus() as bus, asyncio.TaskGroup() as group:
            finding = group.create_task(find_targets(bus, "late", within_s=5))
            await asyncio.sleep(0)
            await bus.leases.claim(lease("late"))
            return await finding

    assert "late" == asyncio.run(main())[0].name


def test_turns_begin_with_idle() -> None:
    """Round robin, the one with the least waiting first."""
    next_one = in_turn([lease("x.1", queued=9), lease("x.2"), lease("x.3", queued=1)])

    assert ["x.2", "x.3", "x.1", "x.2"] == [next_one().name for _ in range(4)]
