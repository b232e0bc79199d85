"""A worker of the topology as a running child: argv, environment, process; nothing else spawns."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from pbus.process import groups
from pbus.process.events import Stream
from pbus.process.output import LineSplitter
from pbus.topology.model import DeliverySpec, Encoding, Loop, WorkerInstance

ORDER_VARIABLE = "PBUS_SPEC"

OnLine = Callable[[Stream, str], None]

# A pipe's buffer may hold 32,768 lines of one character: everybody else would wait for them.
_LINES_AT_ONCE = 200

_STREAMS: dict[int, Stream] = {1: "out", 2: "err"}


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers of one `up` share.

    Attributes:
        url: Of the broker, password included; it reaches children by environment only.
        file: The topology's, for importing worker classes.
        state: The project's state folder, by which a `pbus` in a worker finds its project.
        guard_token: By this the guard finds processes that nobody told it about.
        loop: What child programs run on.
    """

    url: str
    channel: str
    max_message_bytes: int
    session: str
    project: str
    file: Path
    state: Path
    guard_token: str
    encoding: Encoding = "json"
    loop: Loop = "asyncio"
    delivery: DeliverySpec = DeliverySpec()


class WorkerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the child program is asked to host; travels as JSON in the environment.

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
    """Everything needed to start one life of a worker."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path


def plan_launch(
    instance: WorkerInstance,
    around: Surroundings,
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
        "PBUS_URL": around.url,
        "PBUS_CHANNEL": around.channel,
        "PBUS_WORKER": instance.name,
        "PBUS_SESSION": around.session,
        "PBUS_INCARNATION": incarnation,
        groups.PROJECT_VARIABLE: around.project,
        groups.STATE_VARIABLE: str(around.state),
        "PBUS_MAX_MESSAGE_BYTES": str(around.max_message_bytes),
        "PBUS_ENCODING": around.encoding,
        "PBUS_DELIVERY": msgspec.json.encode(around.delivery).decode(),
        "PBUS_GUARD_TOKEN": around.guard_token,
    }
    if spec.command is not None:
        return Launch(argv=spec.command, env=env, cwd=spec.working_dir)
    order = WorkerOrder(
        worker=spec.worker or "",
        args=spec.args,
        active=spec.active,
        file=str(around.file),
        loop=around.loop,
        group=spec.name,
    )
    env[ORDER_VARIABLE] = msgspec.json.encode(order).decode()
    # The name is for people who read process lists; the child itself reads the environment.
    argv = (sys.executable, "-P", "-m", "pbus.process.child", instance.name)
    return Launch(argv=argv, env=env, cwd=spec.working_dir)


class Child:
    """One life of a worker's process, leader of a process group and session of its own."""

    def __init__(
        self, transport: asyncio.SubprocessTransport, pipes: "_Pipes", incarnation: str
    ) -> None:
        self._transport = transport
        self._pipes = pipes
        self._gone = False
        self.pid: int = transport.get_pid()
        self.incarnation = incarnation
        self.started_at = time.time()

    @property
    def code(self) -> int | None:
        """The exit code, minus the signal's number, or None while it runs."""
        return self._transport.get_returncode()

    @property
    def is_gone(self) -> bool:
        """Whether the process and all others of its group ended."""
        # Once empty, the number may come to belong to strangers: look no more.
        self._gone = self._gone or (self.code is not None and groups.is_empty(self.pid))
        return self._gone

    async def wait(self) -> int:
        """Wait for the process itself (not its group) to end."""
        await self._pipes.exited.wait()
        return cast("int", self.code)

    async def wait_drained(self, limit_s: float) -> None:
        """Wait until all output was read, or a descendant holds the pipes open for too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._pipes.drained.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the whole group, unless it is gone."""
        if not self.is_gone:
            groups.send_signal(self.pid, number)

    def close(self) -> None:
        """Let go of the pipes; a process that still runs is killed."""
        self._transport.close()


async def spawn(
    launch: Launch, incarnation: str, on_line: OnLine, on_exit: Callable[[], None]
) -> Child:
    """Start a child; `on_line` is called for each line that it writes, `on_exit` when it ends.

    Raises:
        OSError: The program cannot be started.
    """
    transport, pipes = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Pipes(on_line, on_exit),
        *launch.argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=launch.env,
        cwd=launch.cwd,
        start_new_session=True,
    )
    return Child(transport, pipes, incarnation)


class _Pipes(asyncio.SubprocessProtocol):
    """Reads both pipes always, so that a chatty child never waits for anybody but us.

    asyncio's Process would do for less: its wait() may hang on a pipe that a grandchild inherited.
    """

    def __init__(self, on_line: OnLine, on_exit: Callable[[], None]) -> None:
        self._on_line = on_line
        self._on_exit = on_exit
        self._transport: asyncio.SubprocessTransport | None = None
        self._splitters = {1: LineSplitter(), 2: LineSplitter()}
        self._waiting: dict[int, Iterator[str]] = {}  # lines of one chunk, not passed on yet
        self.exited = asyncio.Event()
        self.drained = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._waiting[fd] = self._splitters[fd].feed(data)
        self._pass_on(fd)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        for line in self._waiting.pop(fd, ()):
            self._on_line(_STREAMS[fd], line)
        for line in self._splitters.pop(fd).flush():
            self._on_line(_STREAMS[fd], line)
        if not self._splitters:
            self.drained.set()

    def process_exited(self) -> None:
        self.exited.set()
        self._on_exit()

    def _pass_on(self, fd: int) -> None:
        """Pass on some lines; the rest of the chunk later, and nothing is read before that."""
        lines = self._waiting.get(fd)
        if lines is None:
            return
        for count, line in enumerate(lines, 1):
            self._on_line(_STREAMS[fd], line)
            if count == _LINES_AT_ONCE:
                self._read(fd, on=False)
                asyncio.get_running_loop().call_soon(self._pass_on, fd)
                return
        del self._waiting[fd]
        self._read(fd, on=True)

    def _read(self, fd: int, *, on: bool) -> None:
        pipe = self._transport.get_pipe_transport(fd) if self._transport else None
        if isinstance(pipe, asyncio.ReadTransport):
            if on:
                pipe.resume_reading()
            else:
                pipe.pause_reading()
