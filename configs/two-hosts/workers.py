"""A house on one machine and a guest on another: ready, asked, lost and found over the network."""

import socket

from pbus import (
    BaseWorker,
    BusJobRequestMessage,
    WorkerLostData,
    WorkerReadyData,
    job,
    worker_ready,
)


class House(BaseWorker):
    """Lets guests in."""

    @job(name="visit")
    async def visit(self, request: BusJobRequestMessage) -> dict[str, str]:
        """Say where the house is, and remember who came."""
        print(f"a visit from {(request.payload or {})['host']}", flush=True)
        return {"host": socket.gethostname()}


class Guest(BaseWorker):
    """Visits the house as often as it comes to be there."""

    @worker_ready(name="house")
    async def on_house(self, data: WorkerReadyData) -> None:
        """The house is there, for the first time or again."""
        host = socket.gethostname()
        async with self.job(
            data.worker_name, name="visit", payload={"host": host}, timeout=30
        ) as asked:
            pass
        print(f"from {host} I visited the house on {asked.response['host']}", flush=True)

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        """It went away."""
        print(f"the house is gone: {data.reason}", flush=True)
