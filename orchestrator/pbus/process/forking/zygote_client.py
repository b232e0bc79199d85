"""One zygote, as its supervisor sees it."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

import msgspec

from pbus.errors import ProcessError
from pbus.process.forking.adoption import adopting_orphans
from pbus.process.forking.fork_messages import (
    FileStamp,
    ForkRequest,
    ZygoteReady,
    ZygoteSpec,
    receive,
    send,
    stamp,
)
from pbus.process.forking.forked_worker import GO, PID_FORMAT
from pbus.process.system import open_files
from pbus.process.system.launch_plan import Launch
from pbus.process.system.regular_files import opener
from pbus.process.system.spawn import file_of

READY_S: Final = 10.0  # for its imports; a start that waits longer is made by exec
FORK_S: Final = 5.0
_END_S: Final = 5.0  # of a killed process


class ZygoteError(ProcessError):
    """A zygote does not fork.

    Attributes:
        is_late: It may do so later.
    """

    def __init__(self, problem: str, *, is_late: bool = False) -> None:
        super().__init__(f"the zygote does not fork: {problem}")
        self.is_late = is_late


class ForkedProcess:
    """A forked child of this process; as much of `subprocess.Popen` as supervision needs."""

    def __init__(self, pid: int, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.pid = pid
        self.stdout: IO[bytes] | None = stdout
        self.stderr: IO[bytes] | None = stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Reap the process if it has ended; returns its exit code, or minus a signal's number."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # reaped by another part of this program, as with Popen
                self.returncode = 0
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Zygote:
    """A process that forks workers. It ends when this object or this process does.

    Args:
        spec: What it imports.
        env: Its environment.
        log: Where it writes.

    Raises:
        OSError: It cannot be started.

    Attributes:
        env: Its environment.
        problems: The problems of preloading, each as a text; known when it is ready.
    """

    def __init__(self, spec: ZygoteSpec, env: Mapping[str, str], log: Path) -> None:
        self.env = env
        self.problems: tuple[str, ...] = ()
        self._files: dict[str, FileStamp] = {}
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as stack:
            stack.callback(self._control.close)
            with theirs, open(log, "ab", opener=opener) as output:
                self._process = _launch(spec, env, theirs.fileno(), output.fileno())
            open_files.restore_limit(self._process.pid)
            stack.pop_all()
        self._control.settimeout(0)
        self._ready: asyncio.Future[ZygoteReady] = self._loop.create_future()
        self._ready_by = self._loop.time() + READY_S
        self._loop.add_reader(self._control, self._on_readable)
        with contextlib.suppress(OSError):  # it has ended, which is seen by the reader
            send(self._control, spec)

    @property
    def pid(self) -> int:
        """Its pid, which is its process group, too."""
        return self._process.pid

    @property
    def is_lost(self) -> bool:
        """Whether it cannot fork any more."""
        return self._control.fileno() < 0 or (
            self._ready.done() and self._ready.exception() is not None
        )

    def has_changed(self) -> bool:
        """Whether a file of the modules that it has preloaded is another one now."""
        return any(stamp(path) != before for path, before in self._files.items())

    async def wait_ready(self) -> None:
        """Wait until it can fork.

        Raises:
            ZygoteError: It has ended, cannot fork, or takes too long.
        """
        try:
            async with asyncio.timeout_at(self._ready_by):
                ready = await asyncio.shield(self._ready)
        except TimeoutError:
            raise ZygoteError(f"its imports take longer than {READY_S:g} s", is_late=True) from None
        self.problems, self._files = ready.problems, ready.files
        if ready.obstacle:
            raise ZygoteError(ready.obstacle)

    async def fork(self, launch: Launch) -> ForkedProcess:
        """Have a process forked for a worker; it runs as if it were started by exec.

        Raises:
            ZygoteError: It does not answer, or has ended; no process runs.
            OSError: There is no room for descriptors.
        """
        with contextlib.ExitStack() as kept, contextlib.ExitStack() as theirs:
            link, their_link = socket.socketpair()
            theirs.enter_context(their_link)
            with link:
                stdout, out = _pipe(kept, theirs)
                stderr, err = _pipe(kept, theirs)
                spec = theirs.enter_context(file_of(launch.spec or b""))
                descriptors = (their_link.fileno(), out, err, spec.fileno())
                pid = await self._request(launch, link, descriptors, theirs)
                with contextlib.suppress(OSError):  # it has ended, as a process may at any time
                    link.send(GO)
            kept.pop_all()
        return ForkedProcess(pid, stdout, stderr)

    async def close(self) -> None:
        """End it. Its workers are not touched."""
        self._stop_reading()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _END_S)

    async def _request(
        self,
        launch: Launch,
        link: socket.socket,
        descriptors: tuple[int, ...],
        theirs: contextlib.ExitStack,
    ) -> int:
        request = ForkRequest(
            argv=launch.argv, env=launch.env, cwd=str(launch.cwd), parent=os.getpid()
        )
        link.settimeout(0)
        try:
            with adopting_orphans():
                send(self._control, request, descriptors)
                theirs.close()  # so the link ends with the other process
                async with asyncio.timeout(FORK_S):
                    answer = await self._loop.sock_recv(link, struct.calcsize(PID_FORMAT))
            (pid,) = struct.unpack(PID_FORMAT, answer)
        except TimeoutError:
            raise ZygoteError(f"no answer within {FORK_S:g} s") from None
        except (OSError, struct.error) as error:
            raise ZygoteError("it has ended, or its fork has") from error
        return int(pid)

    def _on_readable(self) -> None:
        try:
            received = receive(self._control, ZygoteReady)
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError):
            received = None
        if received is not None and not self._ready.done():
            self._ready.set_result(received[0])
        elif received is None:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()
        if not self._ready.done():
            self._ready.set_exception(ZygoteError("it has ended"))
            self._ready.exception()  # it may have no reader


def _launch(
    spec: ZygoteSpec, env: Mapping[str, str], control: int, log: int
) -> "subprocess.Popen[bytes]":
    # Its streams begin as those of a worker: that decides how Python buffers and encodes them.
    reading, writing = os.pipe()
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            (sys.executable, "-P", "-m", "pbus.process.zygote", str(control), str(log)),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            env=env,
            cwd=Path(spec.file).parent,
            start_new_session=True,
            pass_fds=(control, log),
        )
    finally:
        os.close(reading)
        os.close(writing)


def _pipe(kept: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[IO[bytes], int]:
    """Return the reading end of a pipe as a file, and the descriptor of its writing end."""
    reading, writing = os.pipe()
    theirs.callback(os.close, writing)
    return kept.enter_context(os.fdopen(reading, "rb", buffering=0)), writing
