"""The installed `pbus` with folders of its own: run it, wait for what it shows, leave nothing behind."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil
import redis

from pbus.seal import KeySeal, parse_keys
from support.command_result import Done
from support.in_process_cli import run_inside
from support.waiting import eventually

PATIENCE_S = 25.0
ENDING_S = 90.0  # a busy disk holds processes up that are killed
PBUS = str(Path(sys.executable).with_name("pbus"))

T = TypeVar("T")
Rows = dict[str, dict[str, Any]]


def wait_for(look: Callable[[], T], limit_s: float = PATIENCE_S) -> T:
    """The first true value that looking gives; fails with the last one when none comes in time."""
    seen: list[T] = []

    def is_there() -> object:
        seen[:] = [look()]
        return seen[0]

    assert eventually(is_there, limit_s), f"not so within {limit_s:g} s; last seen: {seen[0]!r}"
    return seen[0]


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that run; a zombie that is not reaped does not.

    Nor does one that is on its way to that: it has left its memory, and its command line with it.
    """
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies included
            if process.is_running() and process.cmdline():
                found.append(process)
    return found


def command_line(process: psutil.Process) -> str:
    """The words of a process; none of one that has ended meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def can_run(*words: str, program: tuple[str, ...] = ("true",)) -> bool:
    """Whether a program succeeds that is run through these words, as this user and on this system."""
    try:
        done = subprocess.run([*words, *program], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


class Command:
    """A `pbus` that was started; it writes into files, so that no reader is needed in time."""

    def __init__(
        self, words: tuple[str, ...], folder: Path, environ: Mapping[str, str], output: Path
    ) -> None:
        self._out, self._err = output.with_suffix(".out"), output.with_suffix(".err")
        self._began = time.time()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """What it wrote to stdout so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it wrote to stderr so far."""
        return self._err.read_text(errors="replace")

    def until(self, text: str) -> None:
        """Wait until it wrote this, to whatever stream."""
        wait_for(lambda: text in self.out + self.err or self.process.poll() is not None)
        assert text in self.out + self.err, f"ended ({self.process.returncode}): {self.err}"

    def done(self, stdin: str = "", limit_s: float = PATIENCE_S) -> Done:
        """Wait for its end."""
        try:
            self.process.communicate(stdin.encode(), limit_s)
        except subprocess.TimeoutExpired:
            message = f"{self.process.args} goes on; so far: {self.out[-2000:]} {self.err[-2000:]}"
            raise AssertionError(message) from None
        last_word = max(path.stat().st_mtime for path in (self._out, self._err))
        return Done(self.process.returncode, self.out, self.err, last_word - self._began)

    def end(self, number: signal.Signals = signal.SIGINT) -> Done:
        """Signal it, and wait for its end."""
        self.process.send_signal(number)
        return self.done()

    def kill(self) -> None:
        """See that it is over."""
        self.process.kill()
        self.process.communicate()


class CliEnv:
    """State and sockets of its own, so that the projects in it are the only ones that run.

    Args:
        through: Words before each command, such as those that run it in a network namespace.
    """

    def __init__(self, *through: str) -> None:
        self._through = through
        # Short, for socket paths are limited.
        self.folder = Path(tempfile.mkdtemp(prefix="pbus-", dir="/tmp")).resolve()
        self.runtime = self.folder / "run"
        self.runtime.mkdir(mode=0o700)
        self.state = self.folder / "state"
        unwanted = ("PBUS_", "XDG_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)} | {
            "XDG_STATE_HOME": str(self.state),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PYTHON": sys.executable,
        }
        self._commands: list[Command] = []
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._end_projects()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, name: str, files: Mapping[str, str] | Path) -> "Place":
        """A folder with these files, or with a copy of those that stand somewhere."""
        folder = self.folder / name
        if isinstance(files, Path):
            shutil.copytree(files, folder, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir()
            for path, text in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
        return Place(self, folder)

    def start(self, folder: Path, arguments: tuple[str, ...]) -> Command:
        """Start `pbus` in a folder."""
        output = self.folder / f"output-{next(self._numbers)}"
        words = (*self._through, PBUS, *arguments)
        self._commands.append(Command(words, folder, self.environ, output))
        return self._commands[-1]

    def run(self, folder: Path, arguments: tuple[str, ...], stdin: str = "") -> Done:
        """Run `pbus` in a folder to its end, without a process of its own where that will do."""
        if self._through:
            return self.start(folder, arguments).done(stdin)
        return run_inside(arguments, folder, self.environ, stdin)

    def processes(self) -> list[psutil.Process]:
        """All that descends from a `pbus` of this home, whatever its parent is now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("XDG_STATE_HOME") == str(self.state):
                    found.append(process)
        return living(found)

    def command_lines(self) -> str:
        """All words of all their command lines; who ends meanwhile has none."""
        return " ".join(map(command_line, self.processes()))

    def sockets(self) -> list[Path]:
        """All sockets below the runtime folder."""
        return [path for path in self.runtime.rglob("*") if path.is_socket()]

    def records(self) -> list[Path]:
        """The records of projects that run."""
        return list(self.state.glob("pbus/*/project.json"))

    def _end_projects(self) -> None:
        for command in self._commands:
            command.kill()
        for path in self.records():
            with contextlib.suppress(FileNotFoundError):  # it ends by itself meanwhile
                file = json.loads(path.read_text())["file"]
                self.run(self.folder, ("down", "-f", file, "--timeout", "10"))
        nothing_left = eventually(lambda: not self.processes(), ENDING_S)
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert nothing_left, f"left behind: {left}"
        assert [] == self.sockets()


class Place:
    """A folder of an environment that has the name of the topology in it; `pbus` is run there."""

    def __init__(self, cli: CliEnv, folder: Path) -> None:
        self.cli = cli
        self.folder = folder

    def start(self, *arguments: str) -> Command:
        """Start `pbus`."""
        return self.cli.start(self.folder, arguments)

    def run(self, *arguments: str, stdin: str = "", limit_s: float = PATIENCE_S) -> Done:
        """Run `pbus` to its end."""
        return self.start(*arguments).done(stdin, limit_s)

    def tell(self, *arguments: str, stdin: str = "") -> Done:
        """Run `pbus` within this process: for what prepares or looks, not for what is tested."""
        return self.cli.run(self.folder, arguments, stdin)

    def up(self, *options: str) -> Done:
        """Bring the project up, all workers ready."""
        done = self.run("up", "--wait", *options)
        assert done.code == 0, done.err
        return done

    def ask(self, target: str, job: str, payload: object = None) -> Any:
        """The response to a job."""
        data = json.dumps(payload or {})
        done = self.tell("send", target, "--job", job, "--data", data, "--wait")
        assert done.code == 0, done.err
        return done.json

    def logs(self, worker: str) -> list[str]:
        """What a worker wrote, and remarks about it; read from its file, which costs less."""
        paths = self.cli.state.glob(f"pbus/{self.folder.name}-*/logs/workers/{worker}.log")
        lines = [line for path in paths for line in path.read_text(errors="replace").splitlines()]
        return [line.split(" ", 2)[2] for line in lines]

    def rows(self) -> Rows:
        """What `ps` shows, by worker; nothing while it cannot say."""
        done = self.tell("ps", "--json")
        return {row["name"]: row for row in done.json["workers"]} if done.code == 0 else {}

    def until(self, claim: Callable[[Rows], object], limit_s: float = PATIENCE_S) -> Rows:
        """Wait until a claim about the rows of `ps` holds."""
        seen: Rows = {}

        def holds() -> object:
            nonlocal seen
            seen = self.rows()
            return seen and claim(seen)

        shown = eventually(holds, limit_s, every_s=0.1)  # looking keeps the machine from working
        assert shown, f"not so within {limit_s:g} s; last seen: {seen}"
        return seen

    def record(self) -> dict[str, Any]:
        """What is written down of the running project."""
        record: dict[str, Any] = json.loads(self.record_path().read_text())
        return {**record["bus"], **record}

    def record_path(self) -> Path:
        """Where it is written down."""
        return next(self.cli.state.glob(f"pbus/{self.folder.name}-*/project.json"))

    def broker(self) -> redis.Redis:
        """A client of the project's broker, to be closed."""
        return redis.Redis.from_url(self.record()["url"])

    def seal(self, clock: Callable[[], float] = time.time) -> KeySeal:
        """The seal of what holders of the project's key send."""
        record = self.record()
        return KeySeal(parse_keys(record["key"]), record["channel"], clock=clock)

    def until_followed(self, count: int) -> None:
        """Wait until so many connections follow the traffic, beside the supervisor's for its history."""
        count += 1
        with self.broker() as broker:
            wait_for(lambda: sum(c["psub"] != "0" for c in broker.client_list()) == count)

    def supervisor(self) -> psutil.Process:
        """The process that supervises this place."""
        return psutil.Process(self.record()["pid"])

    def child(self, word: str) -> psutil.Process:
        """The supervisor's child that has this in its command line."""
        children = self.supervisor().children()
        return next(one for one in children if word in command_line(one))
