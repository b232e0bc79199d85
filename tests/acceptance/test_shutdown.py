"""However a project ends, nothing of it is left, and it can be started again at once."""

import signal
from collections.abc import Iterator

import psutil
import pytest

from support.cli_env import CliEnv, Command, Place, living, wait_for
from support.terminal import terminal

pytestmark = pytest.mark.cli

WORKERS = """
import asyncio
from pbus import BaseWorker, BusJobRequestMessage, job, worker_ready

class Echo(BaseWorker):
    async def start(self):
        print(f"{self.name} begins")

    async def stop(self):
        print(f"{self.name} stops")

    @job(name="echo")
    async def echo(self, request: BusJobRequestMessage):
        return request.payload

class Ender(BaseWorker):
    @worker_ready(name="echo")
    async def on_echo(self, data):
        await self.end("all is said")
"""
# A program that minds no SIGTERM and leaves a child behind in its group: only the guard helps.
STUBBORN = "trap '' TERM; sleep 600 & echo stubborn; while :; do sleep 600; done"
TOPOLOGY = f"""
name: echo
workers:
  echo: {{worker: "workers:Echo", replicas: 2}}
  stubborn: {{command: [sh, -c, "{STUBBORN}"]}}
"""
LIMIT_S = 10.0  # the promise


@pytest.fixture
def place(cli: CliEnv) -> Iterator[Place]:
    """The same project for each test, which ends it."""
    folder = cli.folder / "echo"
    if folder.exists():
        yield Place(cli, folder)
    else:
        yield cli.place("echo", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})


def foreground(place: Place, *options: str, until: tuple[str, ...]) -> Command:
    """Start `pbus up` piped, and wait until it wrote all this."""
    command = place.start("up", *options)
    for text in until:
        command.until(text)
    return command


def see_nothing_left(place: Place, family: list[psutil.Process]) -> None:
    """No process of it, by pid and by what it inherited, no socket, no record."""
    assert [] == living(family)
    assert [] == place.cli.processes()
    assert [] == place.cli.sockets()
    assert [] == place.cli.records()


def test_killed_supervisor_leaves_nothing(place: Place):
    """Kill -9 of the supervisor: `up` works at once, and the next kill leaves nothing in 10 s."""
    place.up()
    wait_for(lambda: "stubborn" in place.logs("stubborn"))  # it has its child
    first = place.cli.processes()
    assert len(first) >= 7  # supervisor, guard, broker, two workers, a program with its child
    place.supervisor().kill()
    place.up()

    assert [] == living(first)
    assert {"x": 1} == place.ask("echo", "echo", {"x": 1})
    second = place.cli.processes()
    place.supervisor().kill()
    wait_for(lambda: not place.cli.processes(), LIMIT_S)
    see_nothing_left(place, second)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_foreground(place: Place, number: signal.Signals, code: int):
    """Ctrl-C and SIGTERM stop the workers in order; the command ends when nothing is left."""
    command = foreground(place, "--plain", "--only", "echo.1", until=("echo.1 * ready",))
    family = place.cli.processes()
    done = command.end(number)

    assert code == done.code
    assert "echo.1 | echo.1 stops" in done.out
    assert "Traceback" not in done.out + done.err
    see_nothing_left(place, family)


def test_second_signal_kills(place: Place):
    """A second Ctrl-C does not wait for a program that ignores signals."""
    command = foreground(place, until=("echo.1   * ready", "stubborn | stubborn"))
    family = place.cli.processes()
    command.process.send_signal(signal.SIGINT)
    command.until("Ctrl-C again kills what is left")
    done = command.end()

    assert 130 == done.code
    assert "killing what is left" in done.out + done.err
    assert "stubborn * was killed by SIGKILL" in done.out
    see_nothing_left(place, family)


def test_terminal_gets_display(place: Place):
    """On a terminal a live display; Ctrl-C ends all, and the terminal is as before."""
    with terminal(place, "up", "--only", "echo.1") as screen:
        screen.until("1/1 ready")
        screen.until("echo.1 begins")
        place.until_followed(1)
        place.tell("send", "echo", "--text", "to be seen")
        screen.until("to be seen")
        family = place.cli.processes()
        screen.press("\x03")

        assert 130 == screen.code()
        assert "\x1b[?1049h" in screen.written
        after = screen.written.rpartition("\x1b[?1049l")[2]
        assert "\x1b[?25h" in screen.written.rpartition("\x1b[?25l")[2]
    assert "echo.1" in after
    see_nothing_left(place, family)


def test_down_stops_everything(place: Place):
    """A second `up`, in the background or not, harms nothing; `down` ends all, a second nothing."""
    place.up("--only", "echo")
    for background in ([], ["-d"]):
        done = place.run("up", "--only", "echo", *background)
        assert (0, "echo: nothing to do\n") == (done.code, done.out)
        assert f"runs already (supervisor pid {place.record()['pid']})" in done.err
    assert ["echo.1", "echo.2"] == list(place.rows())
    assert {"x": 1} == place.ask("echo", "echo", {"x": 1})

    family = place.cli.processes()
    done = place.run("down")
    assert (0, "") == (done.code, done.out)
    assert "stopped echo: nothing of it runs any more" in done.err
    see_nothing_left(place, family)
    again = place.tell("down")
    assert (3, True) == (again.code, "no running project" in again.err)
    assert 3 == place.run("ps").code
    assert "echo.1 stops" in place.run("logs", "echo").out  # logs outlive the project


def test_session_end_is_success(cli: CliEnv):
    """A worker that ends the session ends all of it; nothing is restarted and `up` exits 0."""
    topology = """
name: ending
workers:
  echo: {worker: "workers:Echo", restart: always}
  ender: {worker: "workers:Ender"}
"""
    place = cli.place("ending", {"topology.yaml": topology, "workers.py": WORKERS})
    done = place.run("up")

    assert 0 == done.code
    assert "all is said" in done.out
    assert 1 == done.out.count("echo begins")
    assert 1 == done.out.count("echo stops")
