"""Checks of a broker: whether it is reached, what it is, what it permits."""

import time
from collections.abc import AsyncIterator, Iterator

from pbus.bus.broker_info import BrokerInfo
from pbus.bus.connect import inspect_broker, make_bus
from pbus.client.attachment import CONNECT_S, Attachment
from pbus.client.doctor.channel import broker_clock, channel_findings
from pbus.client.doctor.findings import Finding, error, ok, warning
from pbus.client.doctor.probe import PROBE_S, probe
from pbus.client.status import read_facts, read_queues
from pbus.errors import BusError, PbusError
from pbus.settings import BusSettings
from pbus.topology.model import Topology

_NOT_REACHED = "see that it runs, and that host, port, user and password in `bus.url` are right"


async def broker_findings(
    attachment: Attachment, topology: Topology | None
) -> AsyncIterator[Finding]:
    """All checks of a project's broker and channel.

    Args:
        attachment: Where it is; it may be connected to.
        topology: As it is in its file now.
    """
    bus = attachment.bus
    for finding in key_findings(bus, is_own=attachment.record is not None and _is_own(topology)):
        yield finding
    try:
        info = await inspect_broker(bus.url or "", bus.channel)
    except PbusError as problem:
        yield error("broker", problem.message, problem.hint or _NOT_REACHED)
        return
    for finding in info_findings(info, bus, attachment.shown_url):
        yield finding
    if info.schema in {None, "current"}:  # else a connection would install pbus' functions
        async for finding in _channel_findings(attachment, topology):
            yield finding


async def _channel_findings(
    attachment: Attachment, topology: Topology | None
) -> AsyncIterator[Finding]:
    try:
        async for finding in _channel(attachment, topology):
            yield finding
    except TimeoutError:
        yield error(
            "permissions", f"a message to oneself did not come back within {PROBE_S:g} s",
            "see that the user may publish and subscribe on the channel (README: kinds of URLs)",
        )  # fmt: skip
    except BusError as problem:
        yield error(
            "permissions", problem.message,
            problem.hint or "grant what README lists for such a user",
        )  # fmt: skip


def _is_own(topology: Topology | None) -> bool:
    return topology is not None and topology.bus.url is None


def info_findings(info: BrokerInfo, bus: BusSettings, shown_url: str) -> Iterator[Finding]:
    """The facts that a broker reports about itself."""
    yield ok(
        "broker",
        f"{info.product} {info.version} at {shown_url} answers in {info.latency_s * 1000:.1f} ms",
    )
    if info.may_evict is not None and bus.is_stored:
        yield error(
            "broker",
            f"its maxmemory-policy is {info.may_evict}: short of memory it drops stored messages silently",
            "`CONFIG SET maxmemory-policy noeviction`, and in its configuration file",
        )
    if info.schema is not None:
        yield _schema(info)
    yield from broker_clock(info.ahead_s, has_key=bus.key is not None)


def _schema(info: BrokerInfo) -> Finding:
    if info.pgmq == "missing" and info.schema != "missing":
        return error(
            "schema", "PGMQ is missing, or too old", "have an administrator run `pbus up` once"
        )
    if info.schema == "missing":
        return ok("schema", "nothing is installed yet: the first `pbus up` does it")
    if info.schema == "other":
        return warning(
            "schema", "pbus' functions in the database are of another version",
            "`pbus up` installs its own: end projects of the other version first; where the role may not,"
            " an administrator runs it",
        )  # fmt: skip
    version = "by its SQL, without the extension" if info.pgmq == "SQL" else info.pgmq
    return ok("schema", f"pbus' functions are current, PGMQ {version}")


def key_findings(bus: BusSettings, *, is_own: bool) -> Iterator[Finding]:
    """Whether others can write to the channel."""
    if is_own or bus.key is not None:
        yield ok("key", "everything on the channel is sealed with a key")
    elif bus.is_open_to_all:
        yield warning(
            "key",
            "the broker asks for no password and the bus has no key: all who reach it can send to the"
            " workers and end them",
            "set `bus.key: ${PBUS_KEY}`, or give the broker a password",
        )
    else:
        yield ok("key", "there is none: the broker's own access control is the only protection")


async def _channel(attachment: Attachment, topology: Topology | None) -> AsyncIterator[Finding]:
    async with attachment.opened() as bus:
        receiving = make_bus(attachment.bus)
        await receiving.start(timeout=CONNECT_S)
        try:
            took_s = await probe(bus, receiving)
        finally:
            await receiving.stop()
        yield ok(
            "permissions",
            f"a message to oneself came back in {took_s * 1000:.1f} ms, a record was written",
        )
        leases, hosts = await read_facts(bus)
        queues = await read_queues(bus)
    for finding in channel_findings(leases, hosts, queues, topology, time.time()):
        yield finding
