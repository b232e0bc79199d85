"""A worker of pbus: knows what words mean."""

import asyncio

from pbus import BaseWorker, BusJobRequestMessage, job

MEANINGS = {"bus": "carries messages between workers", "worker": "does what messages ask it for"}


class Dictionary(BaseWorker):
    """Looks words up."""

    @job(name="define")
    async def define(self, request: BusJobRequestMessage) -> dict[str, str]:
        """The meaning of a word; looking takes a moment, and says so."""
        word = (request.payload or {})["word"]
        await self.send_job_update(request.job_id, {"percent": 50})
        await asyncio.sleep(0.1)
        return {"word": word, "meaning": MEANINGS.get(word, "is not in this dictionary")}
