"""The measurements, run one after another."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from msgspec.structs import replace

from pbus.bench.cases import (
    counts,
    fanout,
    follow,
    held,
    inproc,
    job_round_trips,
    rtt,
    scale,
    sealing,
    stall,
    startup,
    throughput,
    urgent,
)
from pbus.bench.cases.stored import backlog, batch_sends, durable, durable_rtt, stored_jobs
from pbus.bench.peers.catalog import PEERS, installed, peers_in
from pbus.bench.peers.nats_server import running_server
from pbus.bench.processes.clean_up import remove_queues
from pbus.bench.processes.own_broker import BrokerKind, own_broker
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Environment, Plan, Report, System
from pbus.bench.turns import Turn, embedded, turns_on, turns_on_embedded
from pbus.process.system.event_loop import require
from pbus.urls import mask_url

Measure = Callable[[BenchProcesses, Plan], Awaitable[CaseResult]]

MEASUREMENTS: Final[dict[str, Measure]] = {
    "throughput": throughput.measure,
    "durable": durable.measure,
    "batch": batch_sends.measure,
    "durable-rtt": durable_rtt.measure,
    "stored-jobs": stored_jobs.measure,
    "backlog": backlog.measure,
    "fanout": fanout.measure,
    "rtt": rtt.measure,
    "jobs": job_round_trips.measure,
    "urgent": urgent.measure,
    "stall": stall.measure,
    "key": sealing.measure,
    "counts": counts.measure,
    "follow": follow.measure,
    "inproc": inproc.measure,
    "start": startup.measure,
    "scale": scale.measure,
    "held": held.measure,
}


async def measure(
    names: Sequence[str],
    plan: Plan,
    *,
    url: str | None = None,
    on_begin: Callable[[str], object] = str,
) -> Report:
    """Run measurements.

    Args:
        names: Keys of MEASUREMENTS.
        plan: How much to measure.
        url: The broker; None starts embedded ones meanwhile: Valkey, for `held` Postgres.
        on_begin: Called with the name of each before it begins.

    Raises:
        BusUnavailableError: The broker cannot be reached.
        ProcessError: A process of the measurement failed.
        PeersMissingError: Other systems are to be measured, and are not installed.
        LoopMissingError: The event loop is not installed.
    """
    require(plan.loop)
    turns, notes = turns_on_embedded(names) if url is None else (turns_on(url, names), [])
    plan, missing = _with_installed_peers(plan, turns)
    broker = embedded(turns) if url is None else mask_url(url)
    found = CaseResult()
    environment = Environment.here(broker, plan.loop)
    for kind, group in itertools.groupby(turns, lambda turn: turn.kind):
        async with _broker(url, kind) as address:
            channels: list[str] = []
            for turn in group:
                on_begin(turn.title)
                found += await _measure_one(turn, plan, address, channels)
            await remove_queues(address, channels)
    return Report(
        environment=environment,
        rows=found.rows,
        checks=found.checks,
        not_measured=(*notes, *missing),
    )


async def _measure_one(turn: Turn, plan: Plan, address: str, channels: list[str]) -> CaseResult:
    """Measure in one turn; adds the channels that it used."""
    peers = peers_in(turn.name, turn.backend, plan.peers)
    baseline: System = "pgmq" if turn.backend == "pgmq" else plan.baseline
    plan = replace(plan, peers=peers, baseline=baseline)
    server = running_server() if "nats-py" in peers else _given("")
    async with (
        server as peer_url,
        BenchProcesses(address, peer_url, plan.loop, direct=plan.direct) as pool,
    ):
        found = await MEASUREMENTS[turn.name](pool, plan)
    channels += pool.channels
    return found.titled("Postgres") if turn.is_second else found


def _with_installed_peers(plan: Plan, turns: Sequence[Turn]) -> tuple[Plan, list[str]]:
    """The plan with the systems that can be measured, and a sentence for each that cannot.

    Raises:
        PeersMissingError: None of those wanted is installed.
    """
    here = {peer for turn in turns for peer in peers_in(turn.name, turn.backend, plan.peers)}
    there, missing = installed([peer for peer in plan.peers if peer in here])
    elsewhere = [
        f"{peer}: it needs {'Postgres' if PEERS[peer].backend == 'pgmq' else 'Redis'} as the broker"
        for peer in plan.peers
        if peer not in here and any(turn.name in PEERS[peer].cases for turn in turns)
    ]
    return replace(plan, peers=tuple(there)), [*missing, *elsewhere]


def _broker(url: str | None, kind: BrokerKind) -> contextlib.AbstractAsyncContextManager[str]:
    return own_broker(kind) if url is None else _given(url)


@contextlib.asynccontextmanager
async def _given(url: str) -> AsyncIterator[str]:
    yield url
