"""Reading stdin by lines, in a thread that does not keep the process from ending."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from typing import Final

MAX_LINE: Final = 4 * 1024 * 1024  # bytes; what is longer is cut, and is no JSON then
_CHUNK: Final = 64 * 1024
_CHUNKS: Final = 16  # that may wait to be read


async def stdin_lines(fd: int = 0) -> AsyncIterator[str]:
    """Yield the lines of a file descriptor until it ends; a pipe, a terminal or a file.

    Args:
        fd: The descriptor.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(_CHUNKS)

    def read() -> None:
        data = b"-"
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            while data:
                room.acquire()
                data = _read(fd)
                loop.call_soon_threadsafe(chunks.put_nowait, data)

    threading.Thread(target=read, name="pbus stdin", daemon=True).start()
    rest = b""
    while data := await chunks.get():
        room.release()
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:  # a terminal that is gone, or no descriptor: its end
        return b""
