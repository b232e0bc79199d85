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
from pbus.bench.cases.stored import backlog, batch_sends, durable, durable_rtt
from pbus.bench.peers.nats_server import check_installed, running_server
from pbus.bench.processes.clean_up import remove_queues
from pbus.bench.processes.own_broker import BrokerKind, own_broker
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.results import CaseResult, Environment, Plan, Report, System
from pbus.process.system.event_loop import require
from pbus.urls import BACKEND_OF_SCHEME, mask_url, url_scheme

Measure = Callable[[BenchProcesses, Plan], Awaitable[CaseResult]]

MEASUREMENTS: Final[dict[str, Measure]] = {
    "throughput": throughput.measure,
    "durable": durable.measure,
    "batch": batch_sends.measure,
    "durable-rtt": durable_rtt.measure,
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

# Those that other systems have, too.
PEER_MEASUREMENTS: Final = frozenset({"fanout", "rtt"})

# On brokers that write to disk, which would slow down the others; the rest on a Valkey that does not.
_BROKERS: Final[dict[str, BrokerKind]] = {
    "durable": "valkey-durable",
    "batch": "valkey-durable",
    "durable-rtt": "valkey-durable",
    "backlog": "valkey-durable",
    "held": "postgres",
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
    if plan.peers:
        check_installed()
    if url is not None and BACKEND_OF_SCHEME.get(url_scheme(url)) == "pgmq":
        plan = replace(plan, baseline="pgmq")
    broker = _embedded(names) if url is None else mask_url(url)
    environment = Environment.here(broker, plan.loop)
    found = CaseResult()
    for kind, group in itertools.groupby(names, lambda name: _BROKERS.get(name, "valkey")):
        async with _broker(url, kind) as address:
            channels: list[str] = []
            for name in group:
                on_begin(name)
                peers = plan.peers if name in PEER_MEASUREMENTS else ()
                async with (
                    _peer(peers) as peer_url,
                    BenchProcesses(address, peer_url, plan.loop) as pool,
                ):
                    found += await MEASUREMENTS[name](pool, replace(plan, peers=peers))
                channels += pool.channels
            await remove_queues(address, channels)
    return Report(environment=environment, rows=found.rows, checks=found.checks)


def _broker(url: str | None, kind: BrokerKind) -> contextlib.AbstractAsyncContextManager[str]:
    return own_broker(kind) if url is None else _given(url)


def _peer(peers: Sequence[System]) -> contextlib.AbstractAsyncContextManager[str]:
    """The URL of the other system's server, if one is measured."""
    return running_server() if peers else _given("")


def _embedded(names: Sequence[str]) -> str:
    kinds = {"Postgres" if _BROKERS.get(name) == "postgres" else "Valkey" for name in names}
    return f"embedded {' and '.join(sorted(kinds))}"


@contextlib.asynccontextmanager
async def _given(url: str) -> AsyncIterator[str]:
    yield url
