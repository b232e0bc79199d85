"""The measurement of a backlog: how many messages it asks for, and what is wanted."""

import asyncio
import contextlib

import pytest

from pbus.bench.cases.stored import backlog
from pbus.bench.cases.stored.backlog import BacklogResult
from pbus.bench.results import Plan
from pbus.settings import BusSettings

RESULT = BacklogResult(
    put_few=100.0,
    drain_few=50.0,
    put_many=79.0,
    drain_many=40.0,
    stats_s=1.5,
    purge_s=4.0,
    wait_s=0.5,
    lost=0,
)


class Pool:
    """Starts no process, and remembers what one would have been told."""

    def __init__(self):
        self.told = []

    def new_bus(self):
        return BusSettings()

    @contextlib.asynccontextmanager
    async def running(self, *roles):
        self.told += roles
        yield [self]

    def go(self):
        self.told.append("go")

    async def result(self, kind):
        assert kind is BacklogResult
        return RESULT


@pytest.mark.parametrize(("count", "expected"), [(None, 1_000_000), (5_000, 5_000)])
def test_a_million_messages_are_held_unless_told_otherwise(count, expected):
    """Stored at least once; the bounds are those of a million, whatever the number."""
    pool = Pool()
    found = asyncio.run(backlog.measure(pool, Plan(count=count)))
    (role, config), go = pool.told

    assert ("backlog", expected, "at-least-once", "go") == (
        role,
        config.count,
        config.bus.delivery,
        go,
    )
    checks = {check.name: (check.at_least, check.at_most, check.is_met) for check in found.checks}
    assert {
        f"put behind {expected:,} / behind 1,000": (0.8, None, False),
        f"drain from {expected:,} / from 1,000": (0.8, None, True),
        f"counts of {expected:,}": (None, 1.0, False),
        f"purge of {expected:,}": (None, 5.0, True),
        "longest send meanwhile": (None, None, True),
        "lost in backlog": (None, 0, True),
    } == checks
