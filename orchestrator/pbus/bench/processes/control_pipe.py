"""A benchmark process' pipe to the pool: orders arrive on stdin, results leave on stdout."""

import asyncio
import sys
from typing import Any, Self

import msgspec

from pbus.bench.processes.roles import MAX_LINE_BYTES, READY


class ControlPipe:
    """Reads orders and writes results, one JSON line each.

    Waiting for an order ends when the pool is gone.
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

    async def receive(self) -> bytes:
        """Wait for the next order.

        Raises:
            EOFError: The pool is gone.
        """
        line = await self._reader.readline()
        if not line:
            raise EOFError
        return line

    def send(self, result: Any) -> None:
        """Send a result."""
        self._write(msgspec.json.encode(result))

    def send_ready(self) -> None:
        """Tell the pool that the measurement may begin."""
        self._write(READY)

    @staticmethod
    def _write(line: bytes) -> None:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
