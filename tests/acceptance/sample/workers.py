"""Workers that say what they hear, for the acceptance tests."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from pbus import BaseWorker, BusDataMessage, BusFrameMessage, BusJobRequestMessage, TextFrame, job


class Note(BusDataMessage):
    """A type that only this sample knows; `hold` keeps the reader busy until a `go` comes."""

    text: str
    blob: str = ""


class Clerk(BaseWorker):
    """Prints what it hears, and does jobs that go well or not."""

    def __init__(
        self,
        name: str,
        *,
        greeting: str = "hello",
        hours: dict[str, Any] | None = None,
        safe: str = "",
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._arguments = {"greeting": greeting, "hours": hours, "safe": safe}
        self._go = asyncio.Event()

    async def on_bus_message(self, message: BusDataMessage) -> None:
        """Say it."""
        if isinstance(message, BusFrameMessage) and isinstance(message.frame, TextFrame):
            print(f"heard text {message.frame.text!r} from {message.source}")
        elif isinstance(message, Note):
            await self._read(message)

    async def _read(self, note: Note) -> None:
        print(f"heard note {note.text!r}")
        if note.text == "go":
            self._go.set()
        elif note.text == "hold":
            self._go.clear()
            await asyncio.wait_for(self._go.wait(), 20)

    @job(name="place")
    async def place(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Where it is and what it was given."""
        return {
            "cwd": str(Path.cwd()),
            "environ": {name: os.environ.get(name) for name in (request.payload or {})["names"]},
            "arguments": self._arguments,
        }

    @job(name="greet")
    async def greet(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Answer in no time."""
        payload = request.payload or {}
        return {"greeting": f"{self._arguments['greeting']}, {payload.get('who', 'you')}"}

    @job(name="climb")
    async def climb(self, request: BusJobRequestMessage) -> dict[str, Any]:
        """Say how far it is, twice."""
        for step in (1, 2):
            await self.send_job_update(request.job_id, {"step": step})
        return {"steps": 2}

    @job(name="fail")
    async def fail(self, request: BusJobRequestMessage) -> None:
        """Do not manage."""
        raise ValueError("no such street")

    @job(name="leave")
    async def leave(self, request: BusJobRequestMessage) -> None:
        """Think that it may end the process."""
        sys.exit(3)

    @job(name="endless")
    async def endless(self, request: BusJobRequestMessage) -> None:
        """Go on until cancelled."""
        try:
            await self.send_job_update(request.job_id, {"step": 1})
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("endless was cancelled")
            raise
