"""A player's line to the stage: orders come by stdin, answers leave by stdout."""

import asyncio
import sys
from typing import Any, Self

import msgspec

from pbus.bench.processes.roles import MAX_LINE_BYTES, READY


class ControlPipe:
    """Reads orders and says answers, one JSON line each.

    Whoever waits here for an order ends when the stage is gone.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    @classmethod
    async def open(cls) -> Self:
        """Take over stdin."""
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        return cls(reader)

    async def next(self) -> bytes:
        """The next order.

        Raises:
            EOFError: There is nobody left to give one.
        """
        line = await self._reader.readline()
        if not line:
            raise EOFError
        return line

    def say(self, answer: Any) -> None:
        """Answer."""
        self._write(msgspec.json.encode(answer))

    def say_ready(self) -> None:
        """Say that the measurement may begin."""
        self._write(READY)

    @staticmethod
    def _write(line: bytes) -> None:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
