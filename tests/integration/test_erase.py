"""A channel is removed from a broker: measured by listing what is there before and after."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from pbus import BaseWorker, WorkerRunner
from pbus.bus import connect
from pbus.bus.connect import erase
from pbus.errors import BusUnavailableError
from pbus.messages import BusDataMessage
from pbus.process import purge
from pbus.process.project.recovery_log import RecoveryLog
from pbus.settings import BusSettings, DeliveryOptions
from support.guard_fixture_program import make_project
from support.postgres import query
from support.waiting import PATIENCE_S, run

ROOT = Path(__file__).parents[2]


class Brick(BusDataMessage):
    """A numbered message."""

    number: int


class Mason(BaseWorker):
    """Refuses every second brick."""

    async def on_bus_message(self, message: Any) -> None:
        if isinstance(message, Brick) and message.number % 2:
            raise ValueError("cracked")


async def build(
    url: str, channel: str, *, then: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Use all that a channel has: registry, records, activation, messages stored, handled and dead."""
    options = DeliveryOptions(max_attempts=1, declared=frozenset({"mason", "away"}))
    bus = connect(url, channel=channel, delivery="at-least-once", delivery_options=options)
    runner = WorkerRunner(bus=bus)
    await runner.add_workers(Mason("mason"))
    running = asyncio.create_task(runner.run())
    await runner.registry.wait_ready("mason", PATIENCE_S)
    await runner.registry.set_active("mason", active=True)
    assert bus.queues is not None
    queues = bus.queues
    for name in ("mason", "away"):
        await queues.open(name, durable=True)
    for number in range(6):
        for name in ("mason", "away"):
            await bus.send(Brick(source="x", target=name, number=number))

    async def is_built() -> bool:
        found = {report.name: report for report in await queues.stats()}
        return (found["mason"].dead, found["mason"].backlog, found["away"].backlog) == (3, 0, 6)

    async with asyncio.timeout(PATIENCE_S):
        while not await is_built():
            await asyncio.sleep(0.02)
    await bus.leases.put_record("host", b"{}", ttl_s=60)
    if then is not None:
        await then()
    await bus.leases.drop_record("host")
    await runner.end()
    await running


async def keys_of(url: str) -> set[bytes]:
    """All keys of a server."""
    async with redis.asyncio.Redis.from_url(url) as client:
        return set(await client.keys("*"))


async def rows_of(url: str) -> dict[str, int]:
    """All tables and functions of a database that are not Postgres' own, and how many rows."""
    names = await query(
        url,
        """SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
            WHERE schemaname IN ('pbus', 'pgmq')""",
    )
    rows = {name: (await query(url, f"SELECT count(*) FROM {name}"))[0][0] for (name,) in names}
    functions = await query(
        url, "SELECT proname FROM pg_proc WHERE pronamespace = 'pbus'::regnamespace"
    )
    return rows | {name: 1 for (name,) in functions}


async def check(url: str, channel: str, listing: Callable[[str], Awaitable[Any]]) -> None:
    """Build beside others whose names are alike, and remove it."""

    async def still_used() -> None:
        assert not await erase(url, channel)

    assert await erase(url, f"{channel}*")  # there is none of that name, and it is no pattern
    await build(url, f"{channel}2")
    await build(url, f"x{channel}")
    before = await listing(url)
    await build(url, channel, then=still_used)
    assert before != await listing(url)

    assert await erase(url, channel)
    assert before == await listing(url)
    assert await erase(url, channel)


@pytest.mark.redis
def test_redis_channel_is_erased(own_valkey: Any, channel: str) -> None:
    """No key of it is left, with or without a time to live; the others' are."""
    run(check(own_valkey.url, channel, keys_of))


@pytest.mark.redis
def test_documented_rights_suffice(own_valkey: Any, channel: str) -> None:
    """Who may not list all keys removes the channel's all the same."""
    rights = re.search(r"`ACL SETUSER user (.*?)`", (ROOT / "README.md").read_text())
    assert rights is not None
    words = rights[1].replace("pbus:shop", channel).replace("\\|", "|").split()
    assert b"+OK" in own_valkey.command("ACL", "SETUSER", "user", *words)

    async def main() -> None:
        before = await keys_of(own_valkey.url)
        await build(own_valkey.url, channel)
        assert before != await keys_of(own_valkey.url)
        assert await erase(f"redis://user:password@127.0.0.1:{own_valkey.port}", channel)
        assert before == await keys_of(own_valkey.url)

    run(main())


@pytest.mark.pgmq
def test_postgres_channel_is_erased(database: str, channel: str) -> None:
    """No row, table or function of it is left; a database that pbus never used stays so."""

    async def main() -> None:
        assert await erase(database, channel)
        there = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pbus'"
        assert 0 == (await query(database, there))[0][0]
        await check(database, channel, rows_of)

    run(main())


@pytest.mark.redis
def test_used_channel_keeps_others(
    valkey: Any, channel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others use the channel only the queues of the project's own workers are removed."""
    monkeypatch.setattr(purge, "_QUIET_S", 0.0)
    project = make_project(tmp_path, monkeypatch)
    project.make_state_dir()
    RecoveryLog(project.state_dir).set_queues(["away"])
    spec = BusSettings(channel=channel, url=valkey.url, delivery="at-least-once")

    async def purge_it() -> None:
        assert not await purge.purge(purge.Leftovers(project, spec))
        bus = connect(valkey.url, channel=channel, delivery="at-least-once")
        async with bus:
            assert bus.queues is not None
            assert ["mason"] == [report.name for report in await bus.queues.stats()]
            assert ["mason"] == [lease.name for lease in await bus.leases.leases()]
        assert not project.state_dir.exists()

    run(build(valkey.url, channel, then=purge_it))


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_absent_broker_is_told(scheme: str, channel: str) -> None:
    """Who cannot be reached is named."""
    with pytest.raises(BusUnavailableError, match=f"{scheme}://127"):
        run(erase(f"{scheme}://127.0.0.1:1", channel))
