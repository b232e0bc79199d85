"""`backend: memory`: all workers in the process of `pbus up`, where a breakpoint works."""

import signal

import psutil
import pytest

from support.cli_env import CliEnv, Place
from support.terminal import terminal

pytestmark = pytest.mark.cli

TOPOLOGY = """
bus: {backend: memory}
workers:
  clerk: {worker: 'workers:Clerk', replicas: 2, args: {word: hello}, env: {GREETING: dear}}
  boss: {worker: 'workers:Boss', active: false}
"""
WORKERS = """
import logging, os, time
from pathlib import Path
from pbus import BaseWorker, job, worker_ready

class Clerk(BaseWorker):
    def __init__(self, name, word):
        super().__init__(name)
        self.word = word

    async def stop(self):
        print("stopped", self.name, flush=True)

    @job(name="greet")
    async def greet(self, request):
        return {"text": f"{self.word} {os.environ['GREETING']} {request.payload['name']}"}

class Boss(BaseWorker):
    @worker_ready(name="clerk")
    async def on_clerk(self, data):
        print("boss active:", self.active, "here:", Path.cwd().name, "bus:", os.environ["PBUS_URL"])
        async with self.job("clerk", name="greet", payload={"name": "Ada"}, timeout=5) as asked:
            pass
        print(asked.response["text"], flush=True)
        logging.getLogger("app").warning("logged")
        BODY
"""

STOPPING = """x = 41
        breakpoint()
        print("went on with", x, flush=True)"""

# Sleeps only until the first signal was handled, then for good.
BLOCKING = """import signal
        first = signal.getsignal(signal.SIGINT)
        calls = []
        def note(*call):
            first(*call)
            calls.append(call)
        signal.signal(signal.SIGINT, note)
        print("busy", flush=True)
        while not calls:
            time.sleep(0.01)
        print("interrupted", flush=True)
        time.sleep(600)"""


def office(cli: CliEnv, name: str, body: str = "pass") -> Place:
    """A project whose boss does this after its first greeting."""
    files = {"topology.yaml": TOPOLOGY, "workers.py": WORKERS.replace("BODY", body)}
    return cli.place(name, files)


def test_workers_share_one_process(cli: CliEnv):
    """Replicas, arguments, environment and activation are as with processes; prints come through."""
    place = office(cli, "shared")
    command = place.start("up")
    command.until("hello dear Ada")
    for line in (
        "boss active: False here: shared bus: memory://",
        "WARNING app: logged",
        "clerk.1 | ready",
        "clerk.2 | ready",
        "boss | ready",
    ):
        command.until(line)
    assert [] == psutil.Process(command.process.pid).children(recursive=True)
    done = command.end()

    assert 130 == done.code
    assert {"stopped clerk.1", "stopped clerk.2"} <= set(done.out.splitlines())
    assert [] == cli.records()


def test_breakpoint_has_the_terminal(cli: CliEnv):
    """A worker that stops at a breakpoint is debugged in the terminal of `up`, then goes on."""
    place = office(cli, "debugged", STOPPING)
    with terminal(place, "up") as screen:
        screen.until("(Pdb)")
        screen.press("p x + 1\n")
        screen.until("42")
        screen.press("x = 7\n")
        screen.press("c\n")
        screen.until("went on with 7")
        screen.press("\x03")

        assert 130 == screen.code()


def test_blocked_worker_interrupted(cli: CliEnv):
    """Ctrl-C ends a worker that keeps the process to itself; the second one, for the first waits."""
    place = office(cli, "blocked", BLOCKING)
    with terminal(place, "up") as screen:
        screen.until("busy")
        screen.press("\x03")
        screen.until("interrupted")  # two signals at once would be one
        screen.press("\x03")

        assert 130 == screen.code()


def test_other_verbs_say_why_not(cli: CliEnv):
    """No other process can look into one without a broker; `down` works all the same."""
    place = office(cli, "alone")
    command = place.start("up")
    command.until("hello dear Ada")
    for verb in (["ps"], ["tail", "--for", "1s"], ["logs"], ["send", "boss", "--text", "x"]):
        done = place.tell(*verb)
        assert (3, "") == (done.code, done.out), verb
        assert f"in one process (pid {command.process.pid}) on memory://" in done.err
    assert 3 == place.run("up").code  # which cannot reach what runs either
    assert 0 == place.run("down").code

    assert 143 == command.done().code
    assert 3 == place.tell("ps").code


@pytest.mark.parametrize("option", ["-d", "--wait"])
def test_no_background(cli: CliEnv, option: str):
    """A debugger needs a terminal."""
    place = office(cli, f"background{option.strip('-')}")
    done = place.tell("up", option)

    assert 2 == done.code
    assert "it runs in the foreground" in " ".join(done.err.split())


def test_only_some_workers(cli: CliEnv):
    """`--only` chooses here, too."""
    place = office(cli, "chosen")
    command = place.start("up", "--only", "clerk.2")
    command.until("clerk.2 | ready")
    done = command.end(signal.SIGTERM)

    assert 143 == done.code
    assert ["stopped clerk.2"] == done.out.splitlines()


def test_end_of_session(cli: CliEnv):
    """When a worker ends the session, `up` is done."""
    place = office(cli, "ended", "await self.end('all said')")
    done = place.run("up")

    assert 0 == done.code
    assert "pbus | the session was ended by boss" in done.err


def test_failure_seen(cli: CliEnv):
    """A worker that fails is named and not restarted, and the exit code tells."""
    place = cli.place(
        "failing",
        {
            "topology.yaml": "bus: {backend: memory}\nworkers: {a: {worker: 'workers:A'}}\n",
            "workers.py": "from pbus import BaseWorker\n\nclass A(BaseWorker):\n"
            "    async def start(self):\n        raise LookupError('no ink')\n",
        },
    )
    done = place.run("up")

    assert 1 == done.code
    assert "a | failed: LookupError: no ink" in done.err
    assert "Traceback" in done.err


def test_bad_class_explained(cli: CliEnv):
    """A class that cannot be loaded is an error with the way to it, before anything runs."""
    place = cli.place(
        "broken",
        {
            "topology.yaml": "bus: {backend: memory}\nworkers: {a: {worker: 'workers:A'}}\n",
            "workers.py": "import does_not_exist\n",
        },
    )
    done = place.run("up")

    assert 1 == done.code
    assert "error: worker 'workers:A' cannot be loaded" in done.err
    assert 'workers.py", line 1' in done.err


def test_uvloop_hosts_them(cli: CliEnv):
    """The loop is the one that the topology names."""
    place = office(
        cli, "fast", "import asyncio; print(type(asyncio.get_running_loop()), flush=True)"
    )
    file = place.folder / "topology.yaml"
    file.write_text(f"loop: uvloop\n{file.read_text()}")
    command = place.start("up")
    command.until("uvloop.Loop")

    assert 130 == command.end().code


def test_validate_describes_it(cli: CliEnv):
    """`validate` knows the bus in memory."""
    done = office(cli, "validated").tell("validate", "--json")

    assert ("memory", "memory://") == (done.json["bus"]["backend"], done.json["bus"]["url"])
