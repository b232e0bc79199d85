"""What a Redis bus does when connections, servers and paths fail."""

import asyncio
import contextlib

import pytest
from redis.asyncio import Redis

from pbus.bus import connect
from pbus.bus.redis import RedisBus
from pbus.errors import BusUnavailableError
from pbus.messages import BusDataMessage, BusMessagesLostMessage
from support.listeners import Listener
from support.proxy import Proxy
from support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.redis


class Count(BusDataMessage):
    """A numbered message."""

    number: int


async def connected(*buses) -> None:
    """Wait until the buses say that they are connected."""
    await until(lambda: all(bus.is_connected for bus in buses))


def counts(messages) -> list[int]:
    """The numbers among messages."""
    return [message.number for message in messages if isinstance(message, Count)]


@pytest.mark.parametrize("form", ["url", "client"])
def test_w01_dropped_connections_come_back(own_valkey, channel, form):
    """After the server drops every connection, both directions work again, with from_url too."""

    async def main():
        def make():
            if form == "url":
                return connect(own_valkey.url, channel=channel)
            return RedisBus(redis=Redis.from_url(own_valkey.tcp_url), channel=channel)

        here, there = make(), make()
        listener = Listener("w")
        await there.subscribe(listener)
        async with here, there:
            await here.send(Count(source="a", target="w", number=1))
            await listener.heard(1)
            for kind in ("pubsub", "normal"):
                own_valkey.command("CLIENT", "KILL", "TYPE", kind)
            await until(lambda: not there.is_connected)  # the reader has noticed
            await connected(here, there)
            await here.send(Count(source="a", target="w", number=2))

            assert [1, 2] == counts(await listener.heard(2))

    asyncio.run(main())


def test_w01_restarted_server_is_found_again(own_valkey, channel):
    """After kill -9 of the server and a new one at the same address: everybody is back by themselves."""

    async def main():
        here, there = (connect(own_valkey.url, channel=channel) for _ in range(2))
        listener = Listener("w")
        await there.subscribe(listener)
        async with here, there:
            await here.send(Count(source="a", target="w", number=1))
            await listener.heard(1)
            own_valkey.kill()
            await here.send(Count(source="a", target="w", number=2))  # waits for the new one
            await asyncio.to_thread(own_valkey.start)

            assert [1, 2] == counts(await listener.heard(2))

    asyncio.run(main())


def test_w02_lost_messages_are_counted(own_valkey, channel):
    """Messages published while a receiver was away become a count, a log line and a message."""

    async def main():
        proxy = Proxy(str(own_valkey.socket))
        async with proxy:
            here = connect(own_valkey.url, channel=channel)
            there = connect(proxy.url, channel=channel)
            bystander = connect(own_valkey.url, channel=channel)
            listener = Listener("w")
            await there.subscribe(listener)
            async with here, there, bystander:
                await here.send(Count(source="a", number=0))
                await listener.heard(1)
                await proxy.cut()
                await until(lambda: not there.is_connected)
                for number in range(1, 6):
                    await here.send(Count(source="a", number=number))
                await here._send_buffers["d"].queue.emptied.wait()
                proxy.restore()
                await connected(there)
                await here.send(Count(source="a", number=6))
                heard = await listener.heard(3)

            lost = [message for message in heard if isinstance(message, BusMessagesLostMessage)]
            assert [0, 6] == counts(heard)
            assert [5] == [message.count for message in lost]
            assert (5, 5) == (there.counters.lost, there.stats("w").lost)

    asyncio.run(main())


def test_w02_lost_end_of_stream_shows(own_valkey, channel):
    """A loss at the end of a stream is noticed without another message, by the mark."""

    async def main():
        proxy = Proxy(str(own_valkey.socket))
        async with proxy:
            here = connect(own_valkey.url, channel=channel)
            there = connect(proxy.url, channel=channel)
            listener = Listener("w")
            await there.subscribe(listener)
            async with here, there:
                await here.send(Count(source="a", number=0))
                await listener.heard(1)
                await proxy.cut()
                await here.send(Count(source="a", number=1))
                await here._send_buffers["d"].queue.emptied.wait()
                proxy.restore()
                heard = await listener.heard(2)

            assert [Count, BusMessagesLostMessage] == [type(message) for message in heard]

    asyncio.run(main())


def test_w35_silent_path_is_noticed(own_valkey, channel):
    """A path that stops forwarding without a word is cut and replaced; sends do not hang."""

    async def main():
        proxy = Proxy(str(own_valkey.socket))
        async with proxy:
            here = connect(own_valkey.url, channel=channel)
            there = connect(proxy.url, channel=channel)
            listener = Listener("w")
            await there.subscribe(listener)
            async with here, there:
                await here.send(Count(source="a", target="w", number=0))
                await listener.heard(1)
                proxy.freeze()
                await there.send(Count(source="b", target="nobody", number=1))
                assert there.is_connected  # it did not wait for what follows
                await until(lambda: not there.is_connected)
                proxy.restore()
                await connected(there)
                await here.send(Count(source="a", target="w", number=2))

                await until(lambda: [0, 2] == counts(listener.messages))

    asyncio.run(main())


def test_w36_sends_share_connections(own_valkey, channel):
    """Two hundred concurrent sends use the connections the bus has, none is opened or refused."""

    async def main():
        here = connect(own_valkey.url, channel=channel)
        listener = Listener("w")
        await here.subscribe(listener)
        async with here:
            before = len(own_valkey.command("CLIENT", "LIST").splitlines())
            await asyncio.gather(
                *(here.send(Count(source="a", target="w", number=n)) for n in range(200))
            )
            await listener.heard(200)
            after = len(own_valkey.command("CLIENT", "LIST").splitlines())

        assert before == after

    asyncio.run(main())


def test_w37_failed_start_leaves_nothing(channel, tmp_path):
    """start() without a server raises within its timeout, and works once the server is there."""

    async def main():
        bus = connect(f"unix://{tmp_path}/missing.sock", channel=channel)
        tasks_before = asyncio.all_tasks()
        with pytest.raises(BusUnavailableError, match="No such file"):
            await asyncio.wait_for(bus.start(timeout=0.3), PATIENCE_S)

        assert (False, tasks_before) == (bus.is_running, asyncio.all_tasks())

    asyncio.run(main())


def test_w37_start_succeeds_later(own_valkey, channel):
    """A bus whose start failed can be started when the server is back."""

    async def main():
        own_valkey.kill()
        bus = connect(own_valkey.url, channel=channel)
        with contextlib.suppress(BusUnavailableError):
            await bus.start(timeout=0.2)
        await asyncio.to_thread(own_valkey.start)
        listener = Listener("w")
        await bus.subscribe(listener)
        async with bus:
            await bus.send(Count(source="a", target="w", number=1))

            assert [1] == counts(await listener.heard(1))

    asyncio.run(main())


def test_wrong_password_fails_at_once(channel):
    """A refused login is an error now, not a retry, and never shows the password."""
    from support.valkey import Valkey  # noqa: PLC0415

    async def main(server: Valkey) -> None:
        url = server.tcp_url.replace("//", "//:s3cret@")
        bus = connect(url, channel=channel)
        with pytest.raises(BusUnavailableError) as caught:
            await asyncio.wait_for(bus.start(timeout=1000), PATIENCE_S)

        assert "s3cret" not in str(caught.value)
        assert "***" in str(caught.value)

    with Valkey("--requirepass", "other", tcp=True) as server:
        asyncio.run(main(server))
