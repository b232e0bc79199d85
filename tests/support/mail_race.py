"""One process of a race between stored mail and plain redis-py: python mail_race.py URL ROLE TOTAL."""

import asyncio
import sys
import time

from redis.asyncio import Redis

from pbus.bus.mail import Outgoing, Settle
from pbus.bus.redis.endpoint import Endpoint
from pbus.bus.redis.mail import RedisMailStore
from pbus.bus.redis.names import Names
from pbus.ids import new_id, new_token
from pbus.messages import Lane

SIZE = 256
PIPELINE = 100
BODY = b'{"type":"Blob","blob":"' + b"x" * (SIZE - 25) + b'"}'


async def mail_send(url: str, total: int) -> None:
    """Put entries of 100 messages, one after another."""
    store, sender = _store(url), new_token()
    started = time.perf_counter()
    for number in range(1, total + 1, PIPELINE):
        bodies, ids = [BODY] * PIPELINE, [new_id() for _ in range(PIPELINE)]
        outgoing = Outgoing("race", Lane.DATA, bodies, ids, sender, 1, number)
        (stored,) = await store.put([outgoing])
        assert stored.mailboxes == 1
    _say(total, started)
    await store.close()


async def mail_receive(url: str, total: int) -> None:
    """Take and settle."""
    store = _store(url)
    await store.open("race", keep=True, max_backlog=10**9)
    await store.purge("race")
    print("ready", flush=True)
    wanted = [("race", lane, 1000) for lane in (Lane.SYSTEM, Lane.DATA)]
    received, started = 0, 0.0
    while received < total:
        letters = await store.take(wanted, holder="receiver", wait_s=5)
        started = started or time.perf_counter()
        await store.settle([Settle(letter) for letter in letters])
        received += len(letters)
    _say(received, started)
    await store.close()


async def plain_send(url: str, total: int) -> None:
    """XADD in pipelines of 100."""
    async with Redis.from_url(url) as redis:
        started = time.perf_counter()
        for _ in range(total // PIPELINE):
            async with redis.pipeline(transaction=False) as pipe:
                for _ in range(PIPELINE):
                    pipe.xadd("plain", {"body": BODY})
                await pipe.execute()
        _say(total, started)


async def plain_receive(url: str, total: int) -> None:
    """XREADGROUP of 100, one XACK for them."""
    async with Redis.from_url(url, protocol=2) as redis:
        await redis.delete("plain")
        await redis.xgroup_create("plain", "group", "0", mkstream=True)
        print("ready", flush=True)
        received, started = 0, 0.0
        while received < total:
            reply = await redis.xreadgroup(
                "group", "receiver", {"plain": ">"}, count=PIPELINE, block=5000
            )
            started = started or time.perf_counter()
            entries = [entry for entry, _ in reply[0][1]]
            await redis.xack("plain", "group", *entries)
            received += len(entries)
        _say(received, started)


def _store(url: str) -> RedisMailStore:
    return RedisMailStore(Endpoint(url=url, redis=None), Names("race"))


def _say(count: int, started: float) -> None:
    print(count / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[2]](sys.argv[1], int(sys.argv[3])))
