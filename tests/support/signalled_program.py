"""A plain script with a worker, its signals as WorkerRunner has them: signalled_program.py URL CHANNEL DELIVERY.

Its handlers wait for the file "go"; with memory:// it sends its own messages. It tells what happens on
stdout, pbus' log included.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

from pbus import BaseWorker, BusDataMessage, JobError, WorkerRunner, connect, job

_POLL_S = 0.01


class Order(BusDataMessage):
    """Work for the keeper; the first one of all waits for the file."""

    number: int = 0


class Keeper(BaseWorker):
    """Holds a message and a job until the file is there."""

    async def start(self):
        if os.environ.get("NEVER_STARTS"):
            print("starting", flush=True)
            await asyncio.Event().wait()

    async def on_bus_message(self, message):
        if isinstance(message, Order):
            print("begins", message.number, flush=True)
            if not message.number:
                await file_is_there()
            print("ends", message.number, flush=True)

    @job(name="hold")
    async def hold(self, request):
        print("holds", flush=True)
        await file_is_there()
        return {"held": True}


class Sender(BaseWorker):
    """Sends what the test sends on other buses."""

    async def on_activated(self, args):
        self.create_task(self.send())

    async def send(self):
        async with self.job("keeper", "hold", timeout=60) as asked:
            for number in range(3):
                await self.send_bus_message(Order(source=self.name, target="keeper", number=number))
        print("answered", asked.response, flush=True)


def may_go() -> bool:
    """Whether the file is there."""
    return Path("go").exists()


async def file_is_there():
    """Wait for the file."""
    while not may_go():
        await asyncio.sleep(_POLL_S)


async def main():
    """Host the worker until it has ended."""
    url, channel, delivery = sys.argv[1:]
    in_memory = url == "memory://"
    bus = None if in_memory else connect(url, channel=channel, delivery=delivery)
    runner = WorkerRunner(bus=bus)
    await runner.add_workers(Keeper("keeper"), *([Sender("sender")] if in_memory else ()))
    await runner.run()
    print("over", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    try:
        asyncio.run(main())
    except JobError as error:
        print(error)
