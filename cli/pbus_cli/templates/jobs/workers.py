"""A foreman who shares work out, and counters who do it, each a process."""

import asyncio
from collections import Counter as Tally
from typing import Any

from pbus import BaseWorker, BusJobRequestMessage, job

PATIENCE_S = 10.0  # for one text; another counter may be asked after that


class Counter(BaseWorker):
    """Counts the words of one text."""

    @job(name="count")
    async def count(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """How often each word occurs: ``{"words": {"be": 2}}``."""
        text = (request.payload or {})["text"]
        return {"words": dict(Tally(text.lower().split()))}


class Foreman(BaseWorker):
    """Has many texts counted at the same time, and adds up."""

    @job(name="total")
    async def total(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """How often each word occurs in all the texts; says how far it is in between."""
        texts = (request.payload or {})["texts"]
        words: Tally[str] = Tally()
        asking = [self._count(text) for text in texts]
        for done, answer in enumerate(asyncio.as_completed(asking), 1):
            words.update(await answer)
            await self.send_job_update(request.job_id, {"done": done, "total": len(texts)})
        return {"words": dict(words.most_common())}

    async def _count(self, text: str) -> dict[str, int]:
        payload = {"text": text}
        async with self.job("counter", name="count", payload=payload, timeout=PATIENCE_S) as asked:
            pass
        counted: dict[str, int] = asked.response["words"]
        return counted
