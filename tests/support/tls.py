"""TLS for tests: an authority and a server certificate of its own, and a door before a plain server."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Self

import pytest

_EXTENSIONS = "subjectAltName={names}\nbasicConstraints=CA:FALSE\n"
_LOOPBACK = "DNS:localhost,IP:127.0.0.1"


class Authority:
    """Signs certificates in a folder, as OpenSSL makes them.

    Attributes:
        path: Its own certificate, which clients trust.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl to make certificates with")
        self._folder = folder
        self.path = folder / "ca.pem"
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *(
                "-nodes",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
                "-days",
                "1",
                "-subj",
                "/CN=test ca",
            ),
        )

    def issue(self, name: str, names: str = _LOOPBACK, days: int = 1) -> tuple[Path, Path]:
        """A certificate and its key, for this machine's loopback unless said otherwise.

        Args:
            name: Of the files.
            names: Whose it is, as OpenSSL's subjectAltName.
            days: How long it holds; below 0 it has expired.
        """
        (self._folder / f"{name}.ext").write_text(_EXTENSIONS.format(names=names))
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"),
        )
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", str(days)),
            *("-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)


class TlsDoor:
    """Speaks TLS on a port of the loopback address, and plain to a Unix socket behind it.

    Args:
        target: The server's socket.
        authority: Signs the door's certificate; also those of clients, where they need one.
        asks: Whether clients need a certificate.
        certificate: The door's own and its key, instead of one for the loopback.
    """

    def __init__(
        self,
        target: Path,
        authority: Authority,
        *,
        asks: bool = False,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._target = target
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*(certificate or authority.issue("server")))
        if asks:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(authority.path)
        self._at_once: ssl.SSLContext | None = self._context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self._at_once
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(_forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class PostgresDoor(TlsDoor):
    """Speaks TLS as Postgres does: when it is asked for.

    Args:
        has_tls: Say yes then.
    """

    def __init__(
        self,
        target: Path,
        authority: Authority,
        *,
        has_tls: bool,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        super().__init__(target, authority, certificate=certificate)
        self._at_once = None
        self._has_tls = has_tls

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(8)
        is_request = first[4:] == b"\x04\xd2\x16\x2f"  # of TLS
        if is_request:
            writer.write(b"S" if self._has_tls else b"N")
            await writer.drain()
            if not self._has_tls:
                writer.close()
                return
            await writer.start_tls(self._context)
            first = b""
        there, back = await asyncio.open_unix_connection(self._target)
        back.write(first)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(_forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
    finally:
        sink.transport.abort()
