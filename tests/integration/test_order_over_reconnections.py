"""Each sender's order holds while a receiver's connections are slowed down, cut and made again."""

import asyncio
import random
from urllib.parse import parse_qs, urlsplit

import pytest

from pbus.bus import connect
from pbus.messages import BusDataMessage
from pbus.settings import DeliveryOptions
from support.listeners import Listener
from support.proxy import Proxy
from support.waiting import PATIENCE_S, run, until

SENDERS = ("a", "b")
ROUNDS = 12


class SequencedNote(BusDataMessage):
    """A numbered message."""

    number: int


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("pgmq", marks=pytest.mark.pgmq),
    ]
)
def server(request):
    """A server's URL, its socket, and what makes a URL for a proxy in front of it."""
    if request.param == "redis":
        valkey = request.getfixturevalue("valkey")
        return valkey.url, str(valkey.socket), lambda proxy: proxy.url
    url = request.getfixturevalue("shared_database")
    (folder,) = parse_qs(urlsplit(url).query)["host"]
    return url, f"{folder}/.s.PGSQL.5432", lambda proxy: proxy.postgres_url(url)


async def disturb(proxy, chance):
    """Slow the connections down, cut them while something is under way, and let them come back."""
    proxy.delay_s = chance.choice((0.005, 0.02, 0.05))
    await asyncio.sleep(chance.uniform(0.0, 4 * proxy.delay_s))
    await proxy.cut()
    await asyncio.sleep(chance.choice((0.0, 0.02)))
    proxy.delay_s = 0.0
    proxy.restore()


@pytest.mark.parametrize("seed", range(2))
def test_order_over_reconnections(server, channel, seed):
    """What two senders sent arrives completely, once, each sender's in its order."""
    url, socket, through = server
    chance = random.Random(seed)

    async def send(bus, name, go_on):
        number = 0
        while go_on():
            await bus.send(SequencedNote(source=name, target="w", number=number))
            number += 1
            await asyncio.sleep(chance.uniform(0.0, 0.01))
        return number

    async def main():
        listener, is_over = Listener("w"), False
        async with Proxy(socket) as proxy:
            options = {
                "channel": channel,
                "delivery": "at-least-once",
                "send_timeout": PATIENCE_S,
                "delivery_options": DeliveryOptions(
                    declared=frozenset({"w"})
                ),  # not lost with a lease
            }
            here, there = connect(url, **options), connect(through(proxy), **options)
            async with here, there:
                await there.subscribe(listener)
                sending = [
                    asyncio.create_task(send(here, name, lambda: not is_over)) for name in SENDERS
                ]
                for _ in range(ROUNDS):
                    heard = len(listener.messages)
                    await disturb(proxy, chance)
                    await until(lambda heard=heard: len(listener.messages) > heard)
                is_over = True
                counts = await asyncio.gather(*sending)
                await listener.heard(sum(counts))
        for name, count in zip(SENDERS, counts, strict=True):
            got = [one.number for one in listener.messages if one.source == name]
            assert list(range(count)) == got

    run(main())
