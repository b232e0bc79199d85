"""A program: its process, and the pipes to its stdin and from its stdout."""

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

from pbus.errors import ProgramStartError, StdinClosedError
from pbus.process.launch_errors import explain
from pbus.process.stdio.program_lines import ByteLines
from pbus.process.system.launch_plan import Launch

_CHUNK_BYTES = 64 * 1024
_BUFFER_BYTES = 64 * 1024  # that wait for the program beside what is in the pipe
_KILL_S = 1.0  # from one signal to the next


class Program:
    """One run of a program.

    Args:
        command: The program and its arguments.
        max_line_bytes: Of a line that it prints.
    """

    def __init__(self, command: Sequence[str], max_line_bytes: int) -> None:
        self._command = tuple(command)
        self._max_line_bytes = max_line_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._stdin: _Stdin | None = None
        self._stdout: asyncio.StreamReader | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start the process, in this one's folder, environment and process group.

        Raises:
            ProgramStartError: There is no such program, or it cannot be run.
        """
        loop = asyncio.get_running_loop()
        (stdin, to_stdin), (from_stdout, stdout) = os.pipe(), os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=stdin, stdout=stdout
            )
        except OSError as error:
            for descriptor in (to_stdin, from_stdout):
                os.close(descriptor)
            raise _start_error(self._command, error) from error
        finally:
            for descriptor in (stdin, stdout):
                os.close(descriptor)
        self._stdout = asyncio.StreamReader(limit=_CHUNK_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(self._stdout, loop=loop)
        await loop.connect_read_pipe(lambda: protocol, os.fdopen(from_stdout, "rb", 0))
        pipe = os.fdopen(to_stdin, "wb", 0)
        _, self._stdin = await loop.connect_write_pipe(lambda: _Stdin(to_stdin), pipe)

    @property
    def code(self) -> int | None:
        """The exit code, minus the signal's number; None while it runs."""
        return None if self._process is None else self._process.returncode

    @property
    def taken(self) -> int:
        """The bytes that the program has read from its stdin."""
        return 0 if self._stdin is None else self._stdin.taken

    async def write(self, line: bytes, *, waits: bool = True) -> int:
        """Write a line to the stdin, one writer after the other.

        Args:
            line: With its newline.
            waits: Whether to wait while the program does not read.

        Returns:
            The position after the line, as `taken` counts.

        Raises:
            StdinClosedError: The program has closed its stdin, or has ended.
        """
        stdin = self._stdin
        if stdin is None:
            raise StdinClosedError(self._command[0])
        if not waits:
            return stdin.write(line, self._command[0])
        async with self._turn:
            await stdin.has_room.wait()
            return stdin.write(line, self._command[0])

    async def lines(self) -> AsyncIterator[bytes | int]:
        """The lines that it prints, until it closes its stdout; too long ones as their length.

        Nothing is read beside the line in hand but one chunk: so the program waits for the reader.
        """
        splitter, stdout = ByteLines(self._max_line_bytes), self._stdout
        while stdout is not None and (chunk := await stdout.read(_CHUNK_BYTES)):
            for line in splitter.feed(chunk):
                yield line
        for line in splitter.flush():
            yield line

    async def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return -1 if self._process is None else await self._process.wait()

    async def has_ended(self, within_s: float) -> bool:
        """Whether it ends within so many seconds."""
        if self._process is not None and self.code is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._process.wait()
        return self.code is not None

    def close_stdin(self) -> None:
        """Close its stdin, behind what was written. Idempotent."""
        if self._stdin is not None:
            self._stdin.close()

    async def end(self, grace_s: float, first: signal.Signals) -> None:
        """Close its stdin, and give it time to end, before the signals."""
        self.close_stdin()
        for number in (first, signal.SIGKILL):
            if await self.has_ended(grace_s):
                return
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(number)
            grace_s = _KILL_S
        await self.has_ended(grace_s)


def check_program(command: Sequence[str]) -> None:
    """Check that there is such a program.

    Raises:
        ProgramStartError: There is none, or it is not executable.
    """
    if shutil.which(command[0]) is None:
        is_there = Path(command[0]).exists()
        raise _start_error(command, OSError(errno.EACCES if is_there else errno.ENOENT, ""))


def _start_error(command: Sequence[str], error: OSError) -> ProgramStartError:
    launch = Launch(argv=tuple(command), env=dict(os.environ), cwd=Path.cwd())
    explained = explain(launch, error)
    return ProgramStartError(command[0], explained.strerror or str(explained))


class _Stdin(asyncio.BaseProtocol):
    """The writing end of a pipe, and how far it was read.

    Args:
        descriptor: Of the pipe.

    Attributes:
        has_room: Set while few bytes wait, or when nothing can be written any more.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.has_room = asyncio.Event()
        self.has_room.set()
        self._transport: asyncio.WriteTransport | None = None
        self._written = 0

    @property
    def taken(self) -> int:
        """The bytes that were read from the pipe."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return 0
        buffer = bytearray(struct.calcsize("i"))
        with contextlib.suppress(OSError):  # a system that does not tell: then all counts as read
            fcntl.ioctl(self._descriptor, termios.FIONREAD, buffer)
        (unread,) = struct.unpack("i", buffer)
        return self._written - transport.get_write_buffer_size() - cast("int", unread)

    def write(self, line: bytes, program: str) -> int:
        """Append a line; returns the position after it."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise StdinClosedError(program)
        transport.write(line)
        self._written += len(line)
        return self._written

    def close(self) -> None:
        """Close the pipe when all was written."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let writers find out."""
        del exc
        self.has_room.set()

    def pause_writing(self) -> None:
        """Hold writers up."""
        self.has_room.clear()

    def resume_writing(self) -> None:
        """Let them go on."""
        self.has_room.set()
