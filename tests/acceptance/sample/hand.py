"""A program of the user's own that joins the bus with what its environment tells."""

import asyncio
import os

from pbus import BaseWorker, BusJobRequestMessage, WorkerRunner, connect, job


class Hand(BaseWorker):
    """Lends itself."""

    @job(name="wave")
    async def wave(self, request: BusJobRequestMessage) -> dict[str, str | None]:
        """Say who asked."""
        return {"to": request.source}


async def main() -> None:
    """Host one worker."""
    bus = connect(os.environ["PBUS_URL"], channel=os.environ["PBUS_CHANNEL"])
    runner = WorkerRunner(bus=bus, handle_sigterm=True)
    await runner.add_workers(Hand(os.environ["PBUS_WORKER"]))
    await runner.run()


asyncio.run(main())
