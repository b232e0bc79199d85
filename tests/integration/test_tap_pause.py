"""A follower begins when senders have heard of it; one that leaves for a while is sent nothing."""

import asyncio

import pytest
import redis.asyncio

from pbus.bus import connect
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.tap import COPYING_NOTE, WHO_COPIES, RedisTap
from pbus.messages import BusDataMessage
from support.listeners import Listener
from support.waiting import PATIENCE_S, finishes, until

pytestmark = pytest.mark.redis


class PausedCount(BusDataMessage):
    """A numbered message."""

    number: int


@pytest.mark.parametrize("options", [{"delivery": "at-least-once"}, {"direct": True}])
def test_follower_begins_when_all_have_heard(own_valkey, channel, options, monkeypatch):
    """Senders copy for it what the server does not show; one that hears late holds it up."""
    monkeypatch.setattr("pbus.bus.redis.tap._ANSWERS_S", PATIENCE_S)

    async def main():
        everyone = Keys(channel).lane("s", "*").decode()
        async with redis.asyncio.from_url(own_valkey.url) as client, client.pubsub() as late:
            await late.subscribe(everyone)
            async with connect(own_valkey.url, channel=channel, **options) as here:
                tap = here.tap()
                opening = asyncio.create_task(tap.__aenter__())
                async with asyncio.timeout(PATIENCE_S):
                    async for heard in late.listen():
                        data = heard["data"]
                        if isinstance(data, bytes) and data.startswith(WHO_COPIES):
                            token = data.removeprefix(WHO_COPIES)
                            break
                await until(lambda: tap.answers == 1)  # of its own process
                assert not opening.done()
                await client.publish(everyone, COPYING_NOTE + b"of-another-follower")
                await client.publish(everyone, COPYING_NOTE + token)
                await finishes(opening)
                await tap.__aexit__(None, None, None)

    asyncio.run(main())


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
