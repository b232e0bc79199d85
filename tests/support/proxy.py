"""A path between a client and a server that a test can slow down, cut or freeze."""

import asyncio
import contextlib
import re
import tempfile
from pathlib import Path
from typing import Self
from urllib.parse import quote


class Proxy:
    """Forwards connections to a Unix socket.

    Args:
        target: The server's socket.

    Attributes:
        delay_s: How long each piece is kept before it is forwarded.
    """

    def __init__(self, target: str) -> None:
        self.delay_s = 0.0
        self._target = target
        self._folder = tempfile.TemporaryDirectory(prefix="pbus-proxy-")
        self._path = Path(self._folder.name) / Path(target).name  # by which Postgres is found
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"unix://{self._path}"

    def postgres_url(self, direct: str) -> str:
        """Where to connect, for a client of Postgres that would use a URL with a socket's folder."""
        return re.sub(r"host=[^&]+", f"host={quote(self._folder.name, safe='')}", direct)

    def turn_to(self, target: str) -> None:
        """Lead new connections to another server; those that exist stay."""
        self._target = target

    async def cut(self) -> None:
        """Close every connection and refuse new ones."""
        self._is_cut = True
        self._close_all()

    def freeze(self) -> None:
        """Forward nothing, and say nothing."""
        self._flows.clear()

    def restore(self) -> None:
        """Forward again; what was frozen is closed."""
        self._is_cut = False
        self._close_all()
        self._flows.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, self._path)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self._close_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.close()
            return
        there, back = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                sink.write(data)
                await sink.drain()
        sink.close()

    def _close_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
