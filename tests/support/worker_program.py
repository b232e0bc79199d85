"""A worker in a process of its own: python worker_program.py URL CHANNEL DELIVERY NAME; ends by SIGTERM.

It does what a Doer does; to "left" it answers how many seconds its handler thinks to have.
"""

import asyncio
import sys
import time

from pbus import BusJobRequestMessage, WorkerRunner, connect, job
from support.job_helpers import Doer


class FarDoer(Doer):
    """Looks at its own clock."""

    @job(name="left")
    async def left(self, request: BusJobRequestMessage) -> dict[str, float]:
        return {"left_s": request.deadline - time.time()}


async def main() -> None:
    """Host it until a signal."""
    url, channel, delivery, name = sys.argv[1:]
    bus = connect(url, channel=channel, delivery=delivery)
    runner = WorkerRunner(bus=bus, session="far", handle_sigint=False, handle_sigterm=True)
    await runner.add_workers(FarDoer(name))
    await runner.run()


if __name__ == "__main__":
    asyncio.run(main())
