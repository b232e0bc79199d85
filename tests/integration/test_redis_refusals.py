"""A server that refuses for a while: live workers go on, the reason is named once, all heals."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from pbus import BaseWorker, WorkerRunner, connect, job
from pbus.bus import WorkerBus
from pbus.messages import BusDataMessage
from support.proxy import Proxy
from support.valkey import Valkey
from support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.redis

ONCE, KEPT = "at-most-once", "at-least-once"
DELIVERIES = pytest.mark.parametrize("delivery", [ONCE, KEPT])


class Slip(BusDataMessage):
    """A numbered message."""

    number: int


class Teller(BaseWorker):
    """Keeps what it gets, and does jobs."""

    def __init__(self) -> None:
        super().__init__("teller")
        self.numbers: list[int] = []

    async def on_bus_message(self, message):
        if isinstance(message, Slip):
            self.numbers.append(message.number)

    @job(name="double")
    async def double(self, request):
        return {"is": 2 * request.payload["number"]}


class Bank:
    """A worker in one runner, who asks it in another, and a bare bus."""

    def __init__(self, url: str, channel: str, delivery: str) -> None:
        self.teller = Teller()
        self.asker = BaseWorker("asker")
        options = {"channel": channel, "delivery": delivery, "send_timeout": PATIENCE_S}
        self.buses: list[WorkerBus] = [connect(url, **options) for _ in range(3)]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[WorkerBus]:
        """All of it, while the block lasts."""
        runners = [WorkerRunner(bus=bus, handle_sigint=False) for bus in self.buses[:2]]
        tasks = []
        for runner, worker in zip(runners, (self.teller, self.asker), strict=True):
            await runner.add_workers(worker)
            tasks.append(asyncio.create_task(runner.run()))
        try:
            async with self.buses[2] as bus:
                yield bus
        finally:
            for runner in runners:
                await runner.cancel("the test is over")
            await asyncio.wait(tasks, timeout=PATIENCE_S)

    async def works(self, number: int) -> None:
        """See that the teller has its lease, does jobs and gets what is sent."""
        leases = self.buses[2].leases
        async with asyncio.timeout(PATIENCE_S):
            while not {"teller"} <= {one.name for one in await _patiently(leases.leases)}:
                await asyncio.sleep(0.02)
            async with self.asker.job("teller", name="double", payload={"number": 4}) as asked:
                pass
        assert {"is": 8} == asked.response
        await self.gets(number)

    async def gets(self, number: int) -> None:
        """See that the teller gets what is sent, once the server takes it."""
        await self.buses[2].send(Slip(source="me", target="teller", number=number))
        await until(lambda: number in self.teller.numbers)


async def _patiently(call):
    while True:
        with contextlib.suppress(Exception):
            return await call()
        await asyncio.sleep(0.05)


@pytest.fixture
def pair() -> Iterator[tuple[Valkey, Valkey]]:
    """Two servers."""
    with Valkey(tcp=True) as one, Valkey(tcp=True) as other:
        yield one, other


def told(caplog: pytest.LogCaptureFixture, text: str) -> int:
    """How many warnings of one bus have this."""
    return sum(text in record.getMessage() for record in caplog.records)


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
