"""A worker of the topology as a running child: argv, environment, process; nothing else spawns."""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from pbus.process.supervisor_events import Stream
from pbus.process.system import groups, open_files, path_json
from pbus.process.system.output import LineSplitter
from pbus.settings import BusSettings
from pbus.topology.model import Loop, WorkerInstance

ORDER_VARIABLE = "PBUS_SPEC_FD"

OnLine = Callable[[Stream, str], None]

# A pipe's buffer may hold 32,768 lines of one character: everybody else would wait for them.
_LINES_AT_ONCE = 200
_PAUSE_S = 0.5  # until a step of a progress bar is shown that no return has ended yet
_POLL_S = 0.05  # where the system has no descriptors of processes
_ABANDON_S = 5.0

_STREAMS: dict[int, Stream] = {1: "out", 2: "err"}


class ProcessEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers of one `up` share.

    Attributes:
        bus: With the broker's URL and password; they reach children by environment only.
        file: The topology's, for importing worker classes.
        state: The project's state folder, by which a `pbus` in a worker finds its project.
        guard_token: By this the guard finds processes that nobody told it about.
        loop: What child programs run on.
    """

    bus: BusSettings
    session: str
    project: str
    file: Path
    state: Path
    guard_token: str
    loop: Loop = "asyncio"


class WorkerLaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the child program is asked to host; travels as JSON through an inherited file.

    In an environment variable it could have 128 KiB at most.

    Attributes:
        worker: "module:Class".
        file: The topology's; see `loading.import_path`.
        group: What it is a replica of; else its own name.
    """

    worker: str
    args: dict[str, Any]
    active: bool
    file: str
    loop: Loop = "asyncio"
    group: str = ""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything needed to start one life of a worker.

    Attributes:
        order: What the child program reads, see ORDER_VARIABLE; None for a command.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    order: bytes | None = None


def plan_launch(
    instance: WorkerInstance,
    around: ProcessEnvironment,
    incarnation: str,
    environ: Mapping[str, str],
) -> Launch:
    """Say how a worker is started, without starting it.

    Args:
        instance: The worker.
        around: What it shares with the others.
        incarnation: The name of this life.
        environ: What children inherit, usually `os.environ`.
    """
    spec = instance.spec
    env = {"PYTHONUNBUFFERED": "1", **environ, **spec.env}
    env.pop(ORDER_VARIABLE, None)  # of an outer pbus, should we run inside one
    env |= {
        **around.bus.to_env(),
        "PBUS_WORKER": instance.name,
        "PBUS_SESSION": around.session,
        "PBUS_INCARNATION": incarnation,
        groups.PROJECT_VARIABLE: around.project,
        groups.STATE_VARIABLE: str(around.state),
        "PBUS_GUARD_TOKEN": around.guard_token,
    }
    if spec.command is not None:
        return Launch(argv=spec.command, env=env, cwd=spec.working_dir)
    order = WorkerLaunchSpec(
        worker=spec.worker or "",
        args=spec.args,
        active=spec.active,
        file=str(around.file),
        loop=around.loop,
        group=spec.name,
    )
    # The name is for people who read process lists; the child itself reads the environment.
    argv = (sys.executable, "-P", "-m", "pbus.process.child", instance.name)
    return Launch(argv=argv, env=env, cwd=spec.working_dir, order=path_json.encode(order))


class Child:
    """One life of a worker's process, leader of a process group and session of its own."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", launch: Launch, incarnation: str
    ) -> None:
        self._process = process
        self._pipes: list[_Pipe] = []
        self._gone = False
        self._exited = asyncio.Event()
        self._on_exit: Callable[[], None] = lambda: None
        self._watched: int | None = None  # the descriptor of the process
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
        # Once empty, the number may come to belong to strangers: look no more.
        self._gone = self._gone or (self.code is not None and groups.is_empty(self.pid))
        return self._gone

    async def wait(self) -> int:
        """Wait for the process itself (not its group) to end."""
        await self._exited.wait()
        return cast("int", self.code)

    async def wait_drained(self, limit_s: float) -> None:
        """Wait until all output was read, or a descendant holds the pipes open for too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for pipe in self._pipes:
                    await pipe.drained.wait()

    def send_signal(self, number: signal.Signals) -> bool:
        """Signal the whole group, unless it is gone; False where that is not permitted."""
        return self.is_gone or groups.send_signal(self.pid, number)

    def close(self) -> None:
        """Let go of the pipes; a process that still runs is killed, if that is permitted."""
        for pipe in self._pipes:
            pipe.close()
        if self._process.poll() is None:
            groups.send_signal(self.pid, signal.SIGKILL)  # and reaped when that is done
        else:
            self._stop_watching()

    # For spawn() only

    async def attach(self, on_line: OnLine, on_exit: Callable[[], None]) -> None:
        """Begin to read its output and to wait for its end."""
        loop = asyncio.get_running_loop()
        for fd, file in ((1, self._process.stdout), (2, self._process.stderr)):
            pipe = _Pipe(_STREAMS[fd], on_line)
            await loop.connect_read_pipe(lambda pipe=pipe: pipe, file)  # type: ignore[misc]
            self._pipes.append(pipe)
        self._on_exit = on_exit
        self._watched = groups.open_process(self.pid)
        if self._watched is None:
            self._look()
        else:
            loop.add_reader(self._watched, self._look)

    async def abandon(self) -> None:
        """End a process that cannot be looked after, and let go of it."""
        self.close()
        deadline = time.monotonic() + _ABANDON_S
        while self._process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - as it is
            await asyncio.sleep(_POLL_S)
        self._stop_watching()
        for file in (self._process.stdout, self._process.stderr):
            if file is not None:
                file.close()

    def _look(self) -> None:
        if self._process.poll() is not None:
            self._stop_watching()
            self._exited.set()
            self._on_exit()
        elif self._watched is None:
            asyncio.get_running_loop().call_later(_POLL_S, self._look)

    def _stop_watching(self) -> None:
        watched, self._watched = self._watched, None
        if watched is not None:
            asyncio.get_running_loop().remove_reader(watched)
            os.close(watched)


async def spawn(
    launch: Launch, incarnation: str, on_line: OnLine, on_exit: Callable[[], None]
) -> Child:
    """Start a child; `on_line` is called for each line that it writes, `on_exit` when it ends.

    A child that was started and cannot be looked after is ended again.

    Raises:
        OSError: The program cannot be started, or there is no room to look after it.
    """
    open_files.see_reserve()
    child = Child(_start(launch), launch, incarnation)
    try:
        open_files.give_back(child.pid)
        await child.attach(on_line, on_exit)
    except BaseException as error:
        await child.abandon()
        if isinstance(error, RuntimeError):
            raise OSError(errno.EAGAIN, str(error)) from error
        raise
    return child


def _start(launch: Launch) -> "subprocess.Popen[bytes]":
    with contextlib.ExitStack() as stack:
        env = launch.env
        inherited: tuple[int, ...] = ()
        if launch.order is not None:
            file = stack.enter_context(_file_of(launch.order))
            env = {**env, ORDER_VARIABLE: str(file.fileno())}
            inherited = (file.fileno(),)
        return subprocess.Popen(  # noqa: S603 - what the topology says
            launch.argv,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=launch.cwd,
            start_new_session=True,
            pass_fds=inherited,
        )


def _file_of(data: bytes) -> IO[bytes]:
    """A file without a name, at its beginning, that holds the data."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("pbus"), "w+b")
    else:
        file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.seek(0)
    return file


class _Pipe(asyncio.Protocol):
    """Reads one pipe always, so that a chatty child never waits for anybody but us."""

    def __init__(self, stream: Stream, on_line: OnLine) -> None:
        self._stream = stream
        self._on_line = on_line
        self._transport: asyncio.ReadTransport | None = None
        self._splitter = LineSplitter()
        self._waiting: Iterator[str] | None = None  # lines of one chunk, not passed on yet
        self._pause: asyncio.TimerHandle | None = None
        self.drained = asyncio.Event()

    def close(self) -> None:
        """Read no more."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._waiting = self._splitter.feed(data)
        self._pass_on()
        if self._splitter.has_progress and self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(_PAUSE_S, self._show_progress)

    def _show_progress(self) -> None:
        self._pause = None
        for line in self._splitter.pause() if self._waiting is None else ():
            self._on_line(self._stream, line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._pause is not None:
            self._pause.cancel()
        for line in self._waiting or ():
            self._on_line(self._stream, line)
        self._waiting = None
        for line in self._splitter.flush():
            self._on_line(self._stream, line)
        self.drained.set()

    def _pass_on(self) -> None:
        """Pass on some lines; the rest of the chunk later, and nothing is read before that."""
        if self._waiting is None or self._transport is None:
            return
        for count, line in enumerate(self._waiting, 1):
            self._on_line(self._stream, line)
            if count == _LINES_AT_ONCE:
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self._waiting = None
        self._transport.resume_reading()
