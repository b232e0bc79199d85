"""A terminal that is suspended, frozen, resized or poor: it never holds the project up."""

import signal
from collections.abc import Iterator

import psutil
import pytest

from support.cli_env import CliEnv, Place, wait_for
from support.terminal import Terminal, terminal

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: tick
bus: {backend: redis}
workers:
  tick: {command: [sh, -c, "while :; do echo tick; sleep 0.2; done"], restart: always}
"""
SHELL = ("/bin/bash", "-c", 'set -m; "$0" "$@"; echo "left $?"; read; fg; echo "end $?"')
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def place(cli: CliEnv) -> Iterator[Place]:
    """The same project for each test, which ends it."""
    folder = cli.folder / "tick"
    yield (
        Place(cli, folder) if folder.exists() else cli.place("tick", {"topology.yaml": TOPOLOGY})
    )
    assert [] == cli.processes()


def is_given_back(screen: Terminal) -> bool:
    """Whether the shell has the terminal as it was."""
    screen.text()
    return screen.written.rfind(LEAVE) > screen.written.rfind(ENTER) and screen.written.rfind(
        SHOW
    ) > screen.written.rfind(HIDE)


def test_stopped_display_gives_the_terminal_back(place: Place):
    """Ctrl-Z leaves a usable terminal ; `fg` draws again, in any size."""
    with terminal(place, "up", through=SHELL) as screen:
        screen.until("1/1 ready")
        screen.resize(1, 1)
        screen.press("\x1a")
        screen.until("left 148")

        assert is_given_back(screen)
        assert screen.echoes
        screen.resize(24, 80)
        entered = screen.written.count(ENTER)
        screen.press("\n")
        wait_for(lambda: screen.text() and screen.written.count(ENTER) > entered)
        wait_for(lambda: "1/1 ready" in screen.text().rpartition("left 148")[2])
        screen.press("\x03")
        screen.until("end 130")

        assert is_given_back(screen)


def test_background_is_silent(place: Place):
    """Continued in the background it writes nothing, where that would stop it, too; `down` ends it."""
    shell = SHELL[2].replace("read;", "stty tostop; bg; echo behind; read;")
    with terminal(place, "up", through=("/bin/bash", "-c", shell)) as screen:
        screen.until("1/1 ready")
        screen.press("\x1a")
        screen.until("behind")
        ticks = len(place.logs("tick"))
        wait_for(lambda: len(place.logs("tick")) > ticks + 5)

        assert is_given_back(screen)
        assert place.supervisor().status() != psutil.STATUS_STOPPED
        done = place.tell("down", "--timeout", "20")
        assert (0, True) == (done.code, "nothing of it runs" in done.err)


def test_frozen_terminal_holds_nothing_up(place: Place):
    """Ctrl-S: what ends is started again, and SIGTERM ends it all."""
    with terminal(place, "up") as screen:
        screen.until("1/1 ready")
        screen.press("\x13")
        psutil.Process(place.rows()["tick"]["pid"]).kill()
        place.until(lambda rows: rows["tick"]["restarts"] == 1 and rows["tick"]["ready"])
        screen.process.send_signal(signal.SIGTERM)

        assert 143 == screen.process.wait(20)


def test_quit_leaves_the_terminal_usable(place: Place):
    r"""Ctrl-\ ends it at once, and the screen and the cursor are back; the guard ends the rest."""
    with terminal(place, "up") as screen:
        screen.until("1/1 ready")
        screen.press("\x1c")

        assert -signal.SIGQUIT == screen.code()
        assert 1 == screen.written.count("\x1b[?1049l")
        assert screen.written.rindex("\x1b[?25h") > screen.written.rindex("\x1b[?25l")
    wait_for(lambda: not place.cli.processes())


def test_closed_terminal_ends_it(place: Place):
    """A window that is closed takes its project with it."""
    with terminal(place, "up") as screen:
        screen.until("1/1 ready")
        screen.hang_up()

        assert 129 == screen.process.wait(20)


def test_nohup_outlives_the_terminal(place: Place):
    """Unless the user said that it shall not: then it goes on without its display."""
    shell = ("/bin/sh", "-c", 'trap "" HUP; exec "$0" "$@"')
    with terminal(place, "up", through=shell) as screen:
        screen.until("1/1 ready")
        screen.hang_up()
        ticks = len(place.logs("tick"))
        wait_for(lambda: len(place.logs("tick")) > ticks + 5)

        assert place.rows()["tick"]["ready"]
        done = place.tell("down", "--timeout", "20")
        assert (0, True) == (done.code, "nothing of it runs" in done.err)


def test_key_ends_it_after_a_yes(place: Place):
    """`q` asks: anything but yes goes on; yes stops all workers in order, and that is no error."""
    with terminal(place, "up") as screen:
        screen.until("1/1 ready")
        screen.press("q")
        screen.until("stop them?")
        screen.press("n")
        screen.press("4")
        screen.until("4 edges")
        assert place.rows()["tick"]["ready"]
        screen.press("q")
        wait_for(lambda: screen.text().count("stop them?") > 1)
        screen.press("y")

        assert 0 == screen.code()
        assert is_given_back(screen)
    assert "tick" in screen.written.rpartition(LEAVE)[2]


def test_input_is_no_terminal(place: Place):
    """With stdin elsewhere there are no keys; what is shown is the same, and it takes no processor."""
    shell = ("/bin/sh", "-c", 'exec "$0" "$@" </dev/null')
    with terminal(place, "up", through=shell) as screen:
        screen.until("1/1 ready")
        screen.press("\x03")

        assert 130 == screen.code()
        assert is_given_back(screen)


def test_stopped_supervisor_is_ended(place: Place):
    """`down` ends one that was stopped with Ctrl-Z."""
    with terminal(place, "up", through=SHELL) as screen:
        screen.until("1/1 ready")
        screen.press("\x1a")
        screen.until("left 148")
        done = place.tell("down", "--timeout", "20")

        assert (0, True) == (done.code, "nothing of it runs" in done.err)


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"TERM": "dumb"}, "tick | tick"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "-- 2 traffic"),
        ({"PYTHONIOENCODING": "latin-1"}, "-- 2 traffic"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_poor_terminals(place: Place, environ: dict[str, str], shown: str):
    """Lines where nothing can be drawn; no character that the encoding lacks."""
    with terminal(place, "up", environ=environ) as screen:
        screen.until(shown)
        screen.press("\x03")

        assert 130 == screen.code()
        assert "\ufffd" not in screen.written
        assert (ENTER in screen.written) == (shown != "tick | tick")
