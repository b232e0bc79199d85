"""A server that refuses for a while: live workers go on, the reason is named once, all heals."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import pytest

from pbus import connect
from support.bank import Bank, told
from support.cluster import ValkeyCluster
from support.proxy import Proxy
from support.valkey import Valkey
from support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.redis

ONCE, KEPT = "at-most-once", "at-least-once"
DELIVERIES = pytest.mark.parametrize("delivery", [ONCE, KEPT])


@pytest.fixture
def pair() -> Iterator[tuple[Valkey, Valkey]]:
    """Two servers."""
    with Valkey(tcp=True) as one, Valkey(tcp=True) as other:
        yield one, other


@DELIVERIES
def test_demoted_primary_is_left(pair, channel: str, delivery: str, caplog):
    """The old primary stays up read-only and keeps its connections: all move to the new one."""
    old, new = pair

    async def main() -> None:
        async with Proxy(str(old.socket)) as proxy:
            bank = Bank(proxy.url, channel, delivery)
            async with bank.open():
                await bank.works(1)
                proxy.turn_to(str(new.socket))
                if delivery == KEPT:  # MASTERDOWN, where the other says READONLY
                    old.command("CONFIG", "SET", "replica-serve-stale-data", "no")
                    old.command("REPLICAOF", "127.0.0.1", "1")
                else:
                    old.command("REPLICAOF", "127.0.0.1", str(new.port))
                await until(
                    lambda: b"teller" in new.command("ZRANGE", f"{{{channel}}}:leases", "0", "-1")
                )
                await until(
                    lambda: all(
                        b"sub=2" not in line for line in old.command("CLIENT", "LIST").splitlines()
                    )
                )
                await bank.works(2)

    asyncio.run(main())
    reason = "Link with MASTER is down" if delivery == KEPT else "You can't write against"
    assert 1 <= told(caplog, f"refuses: {reason}") <= 3  # one a bus


async def until_refused(server: Valkey, text: bytes, *words: str) -> None:
    """Wait until the server refuses a command with this."""
    await until(lambda: text in server.command(*words))


async def during(bank: Bank, number: int) -> asyncio.Task[None]:
    """Send while the server refuses."""
    task = asyncio.create_task(bank.gets(number))
    await asyncio.sleep(0.3)  # long enough to be refused several times
    return task


async def break_disk(server: Valkey, bank: Bank) -> None:
    """Snapshots fail, so writes are refused."""
    (server.folder / "dump.rdb").mkdir()
    server.command("CONFIG", "SET", "save", "3600 1000000")
    server.command("BGSAVE")
    await until_refused(server, b"MISCONF", "SET", "x", "1")
    sending = await during(bank, 1)
    server.command("CONFIG", "SET", "save", "")
    await sending


async def keep_busy(server: Valkey, bank: Bank) -> None:
    """A script does not end."""
    server.command("CONFIG", "SET", "busy-reply-threshold", "1")
    spinning = asyncio.create_task(
        asyncio.to_thread(server.command, "EVAL", "while true do end", "0")
    )
    await until_refused(server, b"BUSY", "PING")
    sending = await during(bank, 2)
    server.command("SCRIPT", "KILL")
    await asyncio.gather(sending, spinning)


async def use_up_memory(server: Valkey, bank: Bank) -> None:
    """The server has no memory left."""
    server.command("CONFIG", "SET", "maxmemory", "1")
    sending = await during(bank, 3)
    server.command("CONFIG", "SET", "maxmemory", "0")
    await sending


async def shut_out(server: Valkey, bank: Bank) -> None:
    """Connections are cut, and new ones are refused for a while."""
    with contextlib.closing(server.hold()) as held:
        for order, undo in REFUSING:
            assert held.say(*order).startswith(b"+OK")
            for kind in ("normal", "pubsub"):
                held.say("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await asyncio.sleep(0.3)
            assert held.say(*undo).startswith(b"+OK")
            await bank.works(len(bank.teller.numbers) + 10)


REFUSING = (
    (("ACL", "SETUSER", "default", "-evalsha", "-eval", "-publish"),
     ("ACL", "SETUSER", "default", "+evalsha", "+eval", "+publish")),
    (("CONFIG", "SET", "requirepass", "other"), ("CONFIG", "SET", "requirepass", "")),
    (("CONFIG", "SET", "maxclients", "1"), ("CONFIG", "SET", "maxclients", "1000")),
)  # fmt: skip


@DELIVERIES
def test_refusals_pass(own_valkey: Valkey, channel: str, delivery: str, caplog):
    """What is sent while the server refuses arrives when it does no longer."""
    caplog.set_level(logging.WARNING)
    say = own_valkey.command
    bank = Bank(own_valkey.url, channel, delivery)

    async def main() -> None:
        async with bank.open():
            await bank.works(0)
            await break_disk(own_valkey, bank)
            await keep_busy(own_valkey, bank)
            await use_up_memory(own_valkey, bank)
            await shut_out(own_valkey, bank)
            before = say("CLIENT", "LIST", "TYPE", "normal").count(b"db=")
            say("CONFIG", "SET", "timeout", "1")
            await until(lambda: say("CLIENT", "LIST", "TYPE", "normal").count(b"db=") < before)
            say("CONFIG", "SET", "timeout", "0")
            await bank.works(99)

        assert {0, 1, 2, 3, 99} <= set(bank.teller.numbers)

    asyncio.run(main())
    reasons = ("MISCONF", "BUSY", "'maxmemory'", "no permissions")
    assert all(told(caplog, f"refuses: {reason}") <= 3 for reason in reasons)  # one a bus
    assert 1 <= told(caplog, "BUSY")


FILL = "for i = 1, 30000 do redis.call('SET', 'x' .. i, i) end"
LOADS_SLOWLY = ("--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024")


def test_registry_waits_for_a_loading_server(own_valkey: Valkey, channel: str, monkeypatch):
    """A look into the registry takes its time while the server loads, and does not fail at once."""
    monkeypatch.setattr("pbus.bus.redis.leases._CALL_TIMEOUT_S", PATIENCE_S)
    bus = connect(own_valkey.url, channel=channel)

    async def main() -> None:
        await bus.start()
        try:
            own_valkey.command("EVAL", FILL, "0")
            assert b"+OK" in own_valkey.command("SAVE")
            own_valkey.kill()
            own_valkey.start_with(*LOADS_SLOWLY)
            assert {} == await bus.leases.records()
        finally:
            await bus.stop()

    asyncio.run(main())


@DELIVERIES
def test_loading_server_is_waited_for(own_valkey: Valkey, channel: str, delivery: str, caplog):
    """A server that comes back and loads its file for a while is waited for, by live workers."""
    bank = Bank(own_valkey.url, channel, delivery)

    async def main() -> None:
        async with bank.open():
            await bank.works(1)
            own_valkey.command("EVAL", FILL, "0")
            assert b"+OK" in own_valkey.command("SAVE")
            own_valkey.kill()
            own_valkey.start_with(*LOADS_SLOWLY, "--key-load-delay", "2000")
            sending = asyncio.create_task(bank.gets(2))
            await until(lambda: told(caplog, "is loading the dataset"))
            assert b"+OK" in own_valkey.command("CONFIG", "SET", "key-load-delay", "0")
            await sending
            await bank.works(3)

    asyncio.run(main())
    assert told(caplog, "is loading the dataset") <= 6  # one a bus, and one a registry


@DELIVERIES
def test_cluster_that_is_down_is_waited_for(channel: str, delivery: str, caplog):
    """A cluster without all its slots refuses everything, until they are there again."""
    with ValkeyCluster(1) as cluster:
        bank = Bank(cluster.url(), channel, delivery)
        (node,) = cluster.nodes
        slot = str((cluster.slot(f"{{{channel}}}:x") + 1) % 16_384)

        async def main() -> None:
            async with bank.open():
                await bank.works(1)
                node.command("CONFIG", "SET", "cluster-require-full-coverage", "yes")
                node.command("CLUSTER", "DELSLOTS", slot)
                await until_refused(node, b"CLUSTERDOWN", "GET", f"{{{channel}}}:x")
                sending = asyncio.create_task(bank.gets(2))
                await until(lambda: told(caplog, "refuses: The cluster is down"))
                node.command("CLUSTER", "ADDSLOTS", slot)
                await sending
                await bank.works(3)

        asyncio.run(main())
    assert told(caplog, "refuses: The cluster is down") <= 3
