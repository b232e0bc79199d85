"""A process that handles numbers until it is killed: python queue_consumer_process.py URL CHANNEL HOLDER."""

import asyncio
import os
import sys

from pbus.bus.queues.store import Settlement
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.queue_store import RedisQueueStore
from pbus.bus.redis.server.endpoint import Endpoint
from support.queue_helpers import DATA, SYSTEM, texts


async def main() -> None:
    """Take, write down, settle."""
    url, channel, holder = sys.argv[1:]
    store = RedisQueueStore(Endpoint(url=url, redis=None), Keys(channel))
    wanted = [("box", lane, 5) for lane in (SYSTEM, DATA)]
    while True:
        messages = await store.fetch(wanted, consumer=holder, wait_s=5)
        await store.mark_started(messages)
        for text in texts(messages):
            os.write(1, f"{text}\n".encode())
        await store.settle([Settlement(message) for message in messages])


if __name__ == "__main__":
    asyncio.run(main())
