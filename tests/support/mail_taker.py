"""A process that handles numbers until it is killed: python mail_taker.py URL CHANNEL HOLDER."""

import asyncio
import os
import sys

from pbus.bus.mail import Settle
from pbus.bus.redis.endpoint import Endpoint
from pbus.bus.redis.mail import RedisMailStore
from pbus.bus.redis.names import Names
from support.mailing import DATA, SYSTEM, texts


async def main() -> None:
    """Take, write down, settle."""
    url, channel, holder = sys.argv[1:]
    store = RedisMailStore(Endpoint(url=url, redis=None), Names(channel))
    wanted = [("box", lane, 5) for lane in (SYSTEM, DATA)]
    while True:
        letters = await store.take(wanted, holder=holder, wait_s=5)
        await store.started(letters)
        for text in texts(letters):
            os.write(1, f"{text}\n".encode())
        await store.settle([Settle(letter) for letter in letters])


if __name__ == "__main__":
    asyncio.run(main())
