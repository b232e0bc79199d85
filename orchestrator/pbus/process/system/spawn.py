"""Child processes of workers: spawned, pidfd and signalled."""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import IO, Any, Protocol, cast

from pbus.process.supervisor_events import Stream
from pbus.process.system import groups, open_files
from pbus.process.system.launch_plan import SPEC_VARIABLE, Launch
from pbus.process.system.output import OnLine, OutputPipe

_POLL_S = 0.05  # where the system has no descriptors of processes
_ABANDON_S = 5.0

_STREAMS: dict[int, Stream] = {1: "out", 2: "err"}


class ChildProcess(Protocol):
    """A child of this process: a `subprocess.Popen` with two pipes, or a fork.

    Attributes:
        returncode: The exit code, minus the signal's number, once `poll` has seen the end.
    """

    pid: int
    returncode: int | Any
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def poll(self) -> int | None:
        """Reap the process if it has ended; returns its exit code then."""
        ...


Start = Callable[[Launch], Awaitable[ChildProcess]]


class Child:
    """A worker's process, leader of a process group and session of its own."""

    def __init__(self, process: ChildProcess, launch: Launch, incarnation: str) -> None:
        self._process = process
        self._pipes: list[OutputPipe] = []
        self._gone = False
        self._exited = asyncio.Event()
        self._on_exit: Callable[[], None] = lambda: None
        self._pidfd: int | None = None  # the descriptor of the process
        self.pid = process.pid
        self.launch = launch
        self.incarnation = incarnation
        self.started_at = time.time()

    @property
    def code(self) -> int | None:
        """The exit code, minus the signal's number, or None while it runs."""
        return self._process.returncode

    @property
    def is_gone(self) -> bool:
        """Whether the process and all others of its group ended."""
        # The number of an empty group may be taken by another program: not checked again.
        self._gone = self._gone or (self.code is not None and groups.is_empty(self.pid))
        return self._gone

    async def wait(self) -> int:
        """Wait for the process itself (not its group) to end."""
        await self._exited.wait()
        return cast("int", self.code)

    async def wait_drained(self, limit_s: float) -> None:
        """Wait until all output was read; at most so long, since a descendant may hold the pipes open."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for pipe in self._pipes:
                    await pipe.drained.wait()

    def send_signal(self, number: signal.Signals) -> bool:
        """Signal the whole group, unless it is gone; returns False where that is not permitted."""
        return self.is_gone or groups.send_signal(self.pid, number)

    def close(self) -> None:
        """Close the pipes; a process that still runs is killed, if that is permitted."""
        for pipe in self._pipes:
            pipe.close()
        if self._process.poll() is None:
            groups.send_signal(self.pid, signal.SIGKILL)  # and reaped when that is done
        else:
            self._stop_watching()

    # For spawn() only

    async def attach(self, on_line: OnLine, on_exit: Callable[[], None]) -> None:
        """Start reading its output and waiting for its end."""
        loop = asyncio.get_running_loop()
        for fd, file in ((1, self._process.stdout), (2, self._process.stderr)):
            pipe = OutputPipe(_STREAMS[fd], on_line)
            await loop.connect_read_pipe(lambda pipe=pipe: pipe, file)  # type: ignore[misc]
            self._pipes.append(pipe)
        self._on_exit = on_exit
        self._pidfd = groups.open_process(self.pid)
        if self._pidfd is None:
            self._check_exit()
        else:
            loop.add_reader(self._pidfd, self._check_exit)

    async def abandon(self) -> None:
        """End a process that cannot be pidfd, and reap it."""
        self.close()
        deadline = time.monotonic() + _ABANDON_S
        while self._process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - as it is
            await asyncio.sleep(_POLL_S)
        self._stop_watching()
        for file in (self._process.stdout, self._process.stderr):
            if file is not None:
                file.close()

    def _check_exit(self) -> None:
        if self._process.poll() is not None:
            self._stop_watching()
            self._exited.set()
            self._on_exit()
        elif self._pidfd is None:
            asyncio.get_running_loop().call_later(_POLL_S, self._check_exit)

    def _stop_watching(self) -> None:
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)


async def start_by_exec(launch: Launch) -> ChildProcess:
    """Start a process of a program.

    Raises:
        OSError: The program cannot be started.
        ValueError: Its command or environment cannot be passed to a process.
    """
    with inherited_spec(launch) as (env, descriptors):
        return subprocess.Popen(  # noqa: S603, ASYNC220 - given by the topology; it returns after exec
            launch.argv,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=launch.cwd,
            start_new_session=True,
            pass_fds=descriptors,
        )


async def spawn(
    launch: Launch,
    incarnation: str,
    on_line: OnLine,
    on_exit: Callable[[], None],
    start: Start = start_by_exec,
) -> Child:
    """Start a child process. One that was started and cannot be watched is ended again.

    Args:
        launch: Its arguments.
        incarnation: Its incarnation.
        on_line: Called with each line that it writes.
        on_exit: Called when it ends.
        start: Makes the process.

    Raises:
        OSError: The program cannot be started, or there is no room to watch it.
    """
    open_files.check_reserve()
    child = Child(await start(launch), launch, incarnation)
    try:
        open_files.restore_limit(child.pid)
        await child.attach(on_line, on_exit)
    except BaseException as error:
        await child.abandon()
        if isinstance(error, RuntimeError):
            raise OSError(errno.EAGAIN, str(error)) from error
        raise
    return child


@contextlib.contextmanager
def inherited_spec(launch: Launch) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Open the file with a launch's spec; yields the environment and descriptors for the process."""
    if launch.spec is None:
        yield launch.env, ()
        return
    with file_of(launch.spec) as file:
        yield {**launch.env, SPEC_VARIABLE: str(file.fileno())}, (file.fileno(),)


def file_of(data: bytes) -> IO[bytes]:
    """Return a file without a name that holds the data, at its beginning."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("pbus"), "w+b")
    else:
        file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.seek(0)
    return file
