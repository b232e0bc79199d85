"""A connection pool in transaction mode, as PgBouncer is one: a stand-in, and the real thing."""

import asyncio
import contextlib
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

from pbus.process.services import postgres_cluster
from support.waiting import eventually

PROGRAM = shutil.which("pgbouncer")
_STARTUP = 196608
_CONFIG = """
[databases]
* = host={server}
[pgbouncer]
unix_socket_dir = {folder}
unix_socket_mode = 0777
listen_addr =
listen_port = 5432
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
logfile = {folder}/log
pidfile = {folder}/pid
"""


def through(direct: str, folder: str) -> str:
    """The URL by way of a socket in another folder."""
    parts = urlsplit(direct)
    return parts._replace(query=f"host={quote(folder, safe='')}").geturl()


class StandIn:
    """Gives one session of the server to each client for a transaction, and nothing more.

    Args:
        direct: The URL of a database.
    """

    def __init__(self, direct: str) -> None:
        (folder,) = parse_qs(urlsplit(direct).query)["host"]
        self._server_path = f"{folder}/.s.PGSQL.5432"
        self._folder = tempfile.TemporaryDirectory(prefix="pbus-pool-")
        self.url = through(direct, self._folder.name)
        self._turn = asyncio.Lock()
        self._clients: set[asyncio.Task[None]] = set()
        self._hello: list[bytes] = []
        self._number = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(self._server_path)
        path = f"{self._folder.name}/.s.PGSQL.5432"
        self._server = await asyncio.start_unix_server(self._accept, path)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._writer.close()
        self._folder.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await self._serve(reader, writer)
        self._clients.discard(task)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:  # to questions for encryption the answer is no
            (size,) = struct.unpack("!I", await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            if struct.unpack("!I", body[:4])[0] == _STARTUP:
                break
            writer.write(b"N")
        async with self._turn:
            if not self._hello:
                self._writer.write(struct.pack("!I", size) + body)
                self._hello = [part async for part in self._answer()]
        self._number += 1
        key = b"K" + struct.pack("!III", 12, self._number, 0)  # not the server's
        writer.writelines(key if part[:1] == b"K" else part for part in self._hello)
        while head := await reader.read(1):
            async with self._turn:
                await self._transact(head, reader, writer)

    async def _transact(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass one transaction on, and its answers back."""
        back = asyncio.create_task(self._pass_back(writer))
        try:
            while head and head != b"X":
                size = await reader.readexactly(4)
                rest = await reader.readexactly(struct.unpack("!I", size)[0] - 4)
                self._writer.write(head + size + rest)
                if head in {b"Q", b"S"}:
                    if await back == b"Z\0\0\0\5I":
                        return
                    back = asyncio.create_task(self._pass_back(writer))
                head = await reader.read(1)
        finally:
            back.cancel()
        raise EOFError

    async def _pass_back(self, writer: asyncio.StreamWriter) -> bytes:
        part = b""
        async for part in self._answer():
            writer.write(part)
        return part

    async def _answer(self):
        """What the server says until it is ready."""
        part = b""
        while part[:1] != b"Z":
            head = await self._reader.readexactly(5)
            part = head + await self._reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            yield part


class PgBouncer:
    """The real thing, where it is installed.

    Args:
        direct: The URL of a database.
        mode: Its pool_mode.
    """

    def __init__(self, direct: str, mode: str = "transaction") -> None:
        (server,) = parse_qs(urlsplit(direct).query)["host"]
        self._folder = tempfile.TemporaryDirectory(prefix="pbus-pool-")
        self.url = through(direct, self._folder.name)
        folder = Path(self._folder.name)
        postgres_cluster.own(folder)
        text = _CONFIG.format(server=server, folder=folder, mode=mode)
        (folder / "ini").write_text(text, encoding="utf-8")
        (folder / "users").write_text('"pbus" ""\n', encoding="utf-8")

    async def __aenter__(self) -> Self:
        assert PROGRAM is not None
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, "-q", f"{self._folder.name}/ini",
            stderr=subprocess.DEVNULL, **postgres_cluster.user_options(),
        )  # fmt: skip
        socket = Path(self._folder.name, ".s.PGSQL.5432")
        assert await asyncio.to_thread(eventually, socket.exists)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        async with asyncio.timeout(10):
            await self._process.wait()
        self._folder.cleanup()
