"""Every measurement with few messages: it ends, its figures are there, nothing is lost."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from pbus.bench import MEASUREMENTS, Plan, measure
from pbus.bench.script import Part, Received
from pbus.bench.stage import Stage
from pbus.errors import ProcessError
from support.postgres import query
from support.valkey import Valkey

pytestmark = pytest.mark.redis

FEW = Plan(count=60, size=16, workers=2, tries=2, pause_s=0.05, rounds=1)
EXPECTED = {
    "throughput": ["throughput", "throughput, bus only"],
    "fanout": ["fanout", "broadcast"],
    "rtt": ["rtt"],
    "urgent": ["urgent behind 60", "urgent behind 600"],
    "stall": ["stall, handler sleeps", "stall, process blocked"],
    "inproc": ["in process, 1 worker", "in process, 1,000 workers"],
    "jobs": ["jobs, one at a time", "jobs, 100 in flight"],
    "start": [],  # needs the command
}
EXPECTED_BASELINE = {
    "throughput": ["throughput"],
    "rtt": ["rtt"],
    "jobs": ["jobs, one at a time"],
}


def test_every_measurement_is_tested() -> None:
    """A new one gets its line above."""
    assert set(EXPECTED) == set(MEASUREMENTS)


@pytest.mark.parametrize("name", list(EXPECTED))
def test_measurement_loses_nothing(name: str, valkey: Valkey) -> None:
    """Its rows are there, all messages arrived in order; redis-py handles as many."""
    plan = structs.replace(FEW, has_baseline=name in EXPECTED_BASELINE)
    report = asyncio.run(measure([name], plan, url=valkey.url))
    ours = [row for row in report.rows if row.system == "pbus"]
    theirs = [row for row in report.rows if row.system == "redis-py"]

    assert EXPECTED[name] == [row.name for row in ours]
    assert [(0, 0)] * len(ours) == [(row.lost, row.misordered) for row in ours]
    assert all(row.count > 0 for row in ours)
    assert EXPECTED_BASELINE.get(name, []) == [row.name for row in theirs]
    assert all(row.count == FEW.count for row in theirs)
    assert all(check.value >= 0 for check in report.checks)


@pytest.mark.pgmq
@pytest.mark.parametrize("name", ["throughput", "rtt"])
def test_postgres_has_its_baseline(name: str, database: str) -> None:
    """On Postgres the plain client is that of PGMQ, which gets a twentieth of the work."""
    plan = structs.replace(FEW, has_baseline=True)
    report = asyncio.run(measure([name], plan, url=database))
    ours = [row for row in report.rows if row.system == "pbus"]

    assert EXPECTED[name] == [row.name for row in ours]
    assert [(FEW.count, 0, 0)] * len(ours) == [
        (row.count, row.lost, row.misordered) for row in ours
    ]
    assert [(name, 3, 0)] == [
        (row.name, row.count, row.lost) for row in report.rows if row.system == "pgmq"
    ]
    assert ["pgmq" in check.name for check in report.checks] == [True]
    queues = asyncio.run(query(database, "SELECT queue_name FROM pgmq.list_queues()"))
    assert [] == [row["queue_name"] for row in queues]


def test_command_prints_json(tmp_path: Path) -> None:
    """On a Valkey of its own, of which nothing is left; remarks go to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "pbus_cli", "bench", "inproc", "--count", "60", "--json"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    found = json.loads(done.stdout)

    assert (0, "measuring inproc ...\n") == (done.returncode, done.stderr)
    assert {"environment", "measurements", "checks", "lost"} == set(found)
    assert "embedded Valkey" == found["environment"]["broker"]
    assert EXPECTED["inproc"] == [row["name"] for row in found["measurements"]]
    assert ["in process, 1,000 workers / 1"] == [check["name"] for check in found["checks"]]
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


def test_failing_player_tells_why() -> None:
    """The error of a process is in the error of the measurement."""

    async def main() -> None:
        async with Stage("redis://127.0.0.1:1") as stage:
            await stage.player("redis-send", Part(url=stage.url, channel="x"))
            async with stage.cast(("redis-send", Part(url=stage.url, channel="x"))) as players:
                await players[0].answer(Received)

    with pytest.raises(ProcessError) as caught:
        asyncio.run(main())
    assert "the benchmark's 'redis-send' ended too early" == caught.value.message
    assert "Connection refused" in str(caught.value.hint) or "connect" in str(caught.value.hint)
