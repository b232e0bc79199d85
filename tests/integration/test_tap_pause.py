"""A follower that leaves its channel for a while: the server copies nothing, and the gap is counted."""

import asyncio

import pytest

from pbus.bus import connect
from pbus.bus.redis.tap import RedisTap
from pbus.messages import BusDataMessage
from support.listeners import Listener
from support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.redis


class PausedCount(BusDataMessage):
    """A numbered message."""

    number: int


def test_pause_is_counted_to_the_message(own_valkey, channel):
    """Nothing is sent to it meanwhile, also after a new connection; all that passed is missed."""

    async def main():
        listener = Listener("w")
        async with (
            connect(own_valkey.url, channel=channel) as here,
            connect(own_valkey.url, channel=channel) as there,
        ):
            await there.subscribe(listener)
            tap = here.tap()
            assert isinstance(tap, RedisTap)

            async def send(*numbers):
                for number in numbers:
                    await here.send(PausedCount(source="a", target="w", number=number))
                await listener.heard(numbers[-1])

            def is_followed():
                return b":0" not in own_valkey.command("PUBSUB", "NUMPAT")

            async with tap:
                found = aiter(tap)

                async def seen():
                    async with asyncio.timeout(PATIENCE_S):
                        while (item := await anext(found)).header.type != "PausedCount":
                            pass
                    return item.body[-2:]

                await send(1)
                assert b"1}" == await seen()
                await tap.pause()
                await tap.pause()
                await until(lambda: not is_followed())
                await send(2, 3, 4)
                own_valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
                await until(lambda: there.is_connected and here.is_connected)
                assert not is_followed()
                missed = tap.missed
                await tap.resume()
                await until(is_followed)
                await send(5)
                assert b"5}" == await seen()
                assert 3 == tap.missed - missed

    asyncio.run(main())
