"""`pbus run`: one worker or one program in the foreground, beside a project or alone."""

import os
import signal
import sys

import pytest

from support.cli_env import CliEnv, Place, wait_for
from support.terminal import terminal
from support.valkey import Valkey

pytestmark = pytest.mark.cli

WORKERS = """
import os
from pbus import BaseWorker, job

class Echo(BaseWorker):
    def __init__(self, name, *, word="none"):
        super().__init__(name)
        self.word = word

    @job(name="say")
    async def say(self, request):
        return {"word": self.word, "env": os.environ.get("WORD"), "name": self.name,
                "folder": os.path.basename(os.getcwd()), "pid": os.getpid()}
"""
TOPOLOGY = """
env: {WORD: ours, PBUS_CHANNEL: not-this}
env_file: team.env
workers:
  one: {worker: 'w:Echo', args: {word: hi}, env: {WORD: there}, working_dir: inner}
  many: {worker: 'w:Echo', replicas: 2}
  tool: {command: [sh, -c, 'read line; echo "got $$line"; exit 3']}
"""
ASKING = """
import sys
import pbus.client
with pbus.client.connect_sync() as client:
    print(client.job("one", "say", {}, timeout=10)["word"], sys.argv[1:], sys.stdin.read())
sys.exit(7)
"""
TEAM = "TEAM=blue\nWORD=file\n"
SHELL = ("/bin/bash", "-c", 'set -m; "$0" "$@"; echo "left $?"; read; fg; echo "end $?"')


def make(cli: CliEnv, name: str, text: str = TOPOLOGY) -> Place:
    """A project's folder."""
    place = cli.place(
        name,
        {
            "topology.yaml": f"name: {name}\n{text}",
            "w.py": WORKERS,
            "ask.py": ASKING,
            "team.env": TEAM,
        },
    )
    (place.folder / "inner").mkdir()
    return place


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A project whose worker `tool` has ended; tests leave it running."""
    place = make(cli, "runs")
    place.run("up", "-d", "--wait", "--only", "one,many")
    return place


def test_program_on_the_bus(place: Place):
    """connect() without arguments works in it; words, stdin, stdout and the exit code are its own."""
    done = place.run("run", "--", sys.executable, "ask.py", "-x", "--", "--json", stdin="line")
    killed = place.run("run", "--", "sh", "-c", "kill -9 $$")
    missing = place.run("run", "--", "./nowhere")

    assert (7, "hi ['-x', '--', '--json'] line\n") == (done.code, done.out), done.err
    assert 137 == killed.code
    assert 1 == missing.code
    assert "nowhere" in missing.err


def test_program_has_the_projects_variables(place: Place, monkeypatch: pytest.MonkeyPatch):
    """As workers have them: they win over the environment, and pbus' own win over them."""
    monkeypatch.setitem(place.cli.environ, "WORD", "outer")
    done = place.run("run", "--", "printenv", "WORD", "TEAM", "PBUS_CHANNEL")

    assert (0, ["ours", "blue", "pbus:runs"]) == (done.code, done.out.split())


def test_signals_are_passed_on(place: Place):
    """A program that handles them decides the exit code; else it is that of the signal."""
    for trap, number, code in (
        ("exit 5", "TERM", 5),
        ("-", "TERM", 143),
        ("exit 6", "INT", 6),
        ("exit 9", "USR1", 9),
    ):
        script = f"trap '{trap}' {number}; echo on; while :; do sleep 0.2; done"
        running = place.start("run", "--", "sh", "-c", script)
        running.until("on")

        assert code == running.end(signal.Signals[f"SIG{number}"]).code


def test_worker_under_its_own_name(place: Place):
    """Not beside the one that runs; with its args, env and folder; Ctrl-C ends it in order."""
    refused = place.run("run", "one")
    place.tell("stop", "one")
    running = place.start("run", "one")
    place.until(lambda rows: rows["one"]["ready"])
    answer = place.ask("one", "say")
    ended = running.end()
    place.tell("start", "one")

    assert 1 == refused.code
    assert "`pbus stop one` first" in refused.err
    assert ("hi", "there", "inner") == (answer["word"], answer["env"], answer["folder"])
    assert (0, "") == (ended.code, ended.out)
    assert "Traceback" not in ended.err


def test_one_more_replica(place: Place):
    """Named by what replicas share: the first that does not run, or one more."""
    running = place.start("run", "many")
    place.until(lambda rows: rows.get("many.3", {}).get("ready"))
    assert "many.3" == place.ask("many.3", "say")["name"]
    assert 0 == running.end(signal.SIGTERM).code


def test_wrong_usage(place: Place):
    """An unknown worker, two of them, none; a project that does not run."""
    codes = [place.tell("run", *words).code for words in (("on",), ("one", "many"), ())]
    empty = place.tell("run", "-p", "nobody", "--", "true")

    assert [2, 2, 2] == codes
    assert "did you mean 'one'?" in place.tell("run", "on").err
    assert (3, "") == (empty.code, empty.out)


def test_alone_with_its_broker(cli: CliEnv):
    """A project that does not run: its broker runs meanwhile, others find it, nothing is left."""
    place = make(cli, "alone")
    running = place.start("run", "one")
    wait_for(lambda: place.rows().get("one", {}).get("ready"))
    asked = place.run("run", "--", sys.executable, "ask.py")
    taken = place.run("up", "-d")
    ended = running.end()
    tool = place.run("run", "tool", stdin="x\n")

    assert (7, "hi [] \n") == (asked.code, asked.out), asked.err
    assert (1, True) == (taken.code, "already running (pid" in taken.err), taken.err
    assert 0 == ended.code
    assert (3, "got x\n") == (tool.code, tool.out)
    assert [] == [one for one in cli.records() if one.parent.name.startswith("alone-")]
    killed = place.start("run", "--", "sh", "-c", "echo on; sleep 600")
    killed.until("on")
    pid = place.record()["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "sleep 600" not in cli.command_lines())


def test_ends_with_the_project(cli: CliEnv):
    """`down` leaves no process of a run; a run alone is ended by it, too."""
    place = make(cli, "ending")
    place.run("up", "-d", "--wait", "--only", "one")
    program = place.start("run", "--", "sh", "-c", "echo on; sleep 600")
    program.until("on")
    down = place.run("down")

    assert 0 == down.code, down.err
    assert 143 == program.done().code
    alone = place.start("run", "--", "sh", "-c", "echo on; exec sleep 600")
    alone.until("on")
    assert 0 == place.run("down").code
    assert 143 == alone.done().code


ON_TERMINAL = """
import os, signal, sys
def caught(*_):
    print("caught", flush=True)
    sys.exit(4)
signal.signal(signal.SIGINT, caught)
signal.signal(signal.SIGCONT, lambda *_: print("resumed", flush=True))
if os.isatty(0):
    print("tty", flush=True)
while True:
    signal.pause()
"""


def test_terminal_is_the_programs(place: Place):
    """Ctrl-C and Ctrl-Z are its own, `fg` goes on; afterwards the shell has the terminal."""
    # No shell: one that forks just when it is to stop waits for a child that has stopped.
    with terminal(place, "run", "--", sys.executable, "-c", ON_TERMINAL, through=SHELL) as screen:
        screen.until("tty")
        screen.press("\x1a")
        screen.until("left 148")
        screen.press("\n")
        wait_for(lambda: "resumed" in screen.text().rpartition("left 148")[2])
        screen.press("\x03")
        screen.until("caught")
        screen.until("end 4")


def test_broker_elsewhere(cli: CliEnv):
    """A named file with a URL: nothing is started but the program."""
    with Valkey(tcp=True) as broker:
        place = make(cli, "elsewhere", f"bus: {{url: '{broker.url}'}}\n{TOPOLOGY}")
        running = place.start("run", "-f", "topology.yaml", "one")
        wait_for(lambda: "one" in place.tell("ps", "-f", "topology.yaml").out)
        found = place.run("run", "one")
        ended = running.end()

    assert 3 == found.code
    assert "-f topology.yaml" in found.err
    assert 0 == ended.code
