"""On a channel with a key no process speaks in the name of a worker that another process has."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from pbus import BusDataMessage, BusMessage, BusSystemMessage, WorkerRunner
from pbus.bus import connect
from support.listeners import Listener
from support.recorder import Recorder
from support.waiting import run, until

KEY = "a-key-of-sixteen-characters"


class Claimed(BusDataMessage):
    """Data in some name."""

    number: int


class ClaimedUrgently(BusSystemMessage):
    """As Claimed, urgent."""

    number: int


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("pgmq", marks=pytest.mark.pgmq),
    ]
)
def url(request: pytest.FixtureRequest) -> str:
    """A broker of each kind."""
    if request.param == "redis":
        server_url: str = request.getfixturevalue("valkey").url
    else:
        server_url = request.getfixturevalue("shared_database")
    return server_url


@contextlib.asynccontextmanager
async def hosting(url: str, channel: str, name: str, **options: str) -> AsyncIterator[Recorder]:
    """A worker in a process of its own, as far as the bus can tell."""
    worker = Recorder(name)
    bus = connect(url, channel=channel, key=KEY, delivery="at-most-once", **options)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    async with bus:
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run(auto_end=False))
        await until(lambda: runner.registry.get(name) is not None)
        try:
            yield worker
        finally:
            await runner.cancel()
            await running


def heard(messages: list[BusMessage]) -> list[tuple[str, int]]:
    """Sources and numbers."""
    return [
        (message.source, message.number)
        for message in messages
        if isinstance(message, Claimed | ClaimedUrgently)
    ]


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_name_of_a_worker_is_its_own(
    url: str, channel: str, encoding: str, caplog: pytest.LogCaptureFixture
):
    """Sent by a holder of the key under the name of another's worker: refused, counted, said."""
    if encoding == "msgpack" and url.startswith("postgres"):
        pytest.skip("Postgres carries JSON")

    async def main() -> None:
        options = {"encoding": encoding} if url.startswith(("redis", "unix")) else {}
        async with (
            hosting(url, channel, "clerk", **options) as clerk,
            hosting(url, channel, "victim", **options) as victim,
            connect(url, channel=channel, key=KEY, delivery="at-most-once", **options) as liar,
        ):
            for kind in (Claimed, ClaimedUrgently):
                for target in ("victim", None):
                    await liar.send(kind(source="clerk", target=target, number=1))
                await liar.send(kind(source="unclaimed", target="victim", number=2))
                await clerk.send_bus_message(kind(source="clerk", target="victim", number=3))
            counters = victim.bus.counters
            await until(lambda: counters.refused == 4)
            await until(lambda: len(heard(victim.received)) == 4)
            assert {("unclaimed", 2), ("clerk", 3)} == set(heard(victim.received))
            assert 0 == counters.unsealed

    with caplog.at_level(logging.WARNING, "pbus"):
        run(main())
    assert "its source is 'clerk', a worker of process" in caplog.text
    assert "which has no worker" in caplog.text


def test_successor_and_command_are_heard(url: str, channel: str):
    """A worker that comes back in another process at once, and its answers to one without a registry."""

    async def main() -> None:
        async with (
            hosting(url, channel, "victim") as victim,
            connect(url, channel=channel, key=KEY, delivery="at-most-once") as command,
        ):
            listener = Listener("cli-1")
            await command.subscribe(listener)
            for number in range(2):
                async with hosting(url, channel, "clerk") as clerk:
                    for target in ("victim", "cli-1"):
                        await clerk.send_bus_message(
                            Claimed(source="clerk", target=target, number=number)
                        )
                    await until(lambda number=number: len(heard(victim.received)) == number + 1)
                    await until(lambda number=number: len(heard(listener.messages)) == number + 1)
            assert [("clerk", 0), ("clerk", 1)] == heard(victim.received)
            assert 0 == victim.bus.counters.refused
            assert 0 == command.counters.refused

    run(main())
