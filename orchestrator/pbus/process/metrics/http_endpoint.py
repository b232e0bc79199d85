"""A small HTTP server: GET of a few paths, each answer bounded in size, time and number."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from pbus.errors import ListenError

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 16  # at once; further ones are refused
_MAX_HEAD_BYTES: Final = 8 * 1024
_READ_S: Final = 5.0  # for a whole request
_WRITE_S: Final = 10.0  # for a whole response
_TEXT: Final = "text/plain; charset=utf-8"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Request(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        accept: The types that the client takes; "" for any.
    """

    method: str
    path: str
    accept: str = ""


class Response(msgspec.Struct, frozen=True):
    """A response."""

    status: int
    body: bytes
    content_type: str = _TEXT


Route = Callable[[Request], Awaitable[Response]]


class HttpEndpoint:
    """Answers GET and HEAD of some paths; each connection carries one request.

    Args:
        host: The address to listen at.
        port: Its port.
        routes: The functions that answer, by path.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        self._host = host
        self._port = port
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen.

        Raises:
            ListenError: The address cannot be had.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self._port, limit=_MAX_HEAD_BYTES
            )
        except OSError as error:
            raise ListenError("metrics", f"{self._host}:{self._port}", error) from error

    async def close(self) -> None:
        """Stop listening, and drop the connections. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - called in one
        is_full = len(self._open) >= MAX_CONNECTIONS
        self._open.add(task)
        try:
            await self._converse(reader, writer, is_full=is_full)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it left, or is too slow
        finally:
            self._open.discard(task)
            writer.transport.abort()  # nothing is left to be written, or too slowly

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_full: bool
    ) -> None:
        request = None
        if is_full:
            response = Response(503, b"too many connections\n")
        else:
            async with asyncio.timeout(_READ_S):
                request = await _read(reader)
            response = await self._respond(request)
        async with asyncio.timeout(_WRITE_S):
            writer.write(_head_of(response))
            if request is None or request.method != "HEAD":
                writer.write(response.body)
            writer.write_eof()
            await writer.drain()
            while await reader.read(_MAX_HEAD_BYTES):  # until the client has closed
                pass

    async def _respond(self, request: Request | None) -> Response:
        if request is None:
            return Response(400, b"no request of HTTP\n")
        route = self._routes.get(request.path)
        if route is None:
            paths = " ".join(self._routes)
            return Response(404, f"there is: {paths}\n".encode())
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"only GET and HEAD\n")
        try:
            return await route(request)
        except Exception:
            logger.exception("%s was not answered: a bug in pbus", request.path)
            return Response(500, b"a bug in pbus; see the log of the supervisor\n")


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Read the head of a request; None for what is none."""
    with contextlib.suppress(asyncio.LimitOverrunError, ValueError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.split("\r\n")
        method, target, version = line.split(" ")
        if not version.startswith("HTTP/1."):
            return None
        accepts = [field[7:].strip() for field in fields if field.lower().startswith("accept:")]
        return Request(method, target.partition("?")[0], ",".join(accepts))
    return None


def _head_of(response: Response) -> bytes:
    return (
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode("latin-1")
