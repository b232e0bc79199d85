"""`pbus attach`: looking at a project that runs in the background, without holding it."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from support.cli_env import PBUS, CliEnv, Place, wait_for
from support.terminal import terminal

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: tock
workers:
  tick: {command: [sh, -c, "while :; do echo tick $$$$; sleep 0.2; done"], restart: always}
  dead: {command: [./missing], restart: never}
"""


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A project in the background; tests but the last leave it running."""
    place = cli.place("tock", {"topology.yaml": TOPOLOGY})
    place.run("up", "-d")
    place.until(lambda rows: (rows["tick"]["state"], rows["dead"]["state"]) == ("ready", "failed"))
    return place


@pytest.fixture(autouse=True)
def _runs_on(place: Place) -> Iterator[None]:
    """Whatever becomes of those who look on, the workers are the same."""
    pid = place.record()["pid"] if place.cli.records() else None
    yield
    if place.cli.records():
        assert pid == place.record()["pid"]


def test_display_is_that_of_up(place: Place):
    """Workers, failures, logs and where one is; Ctrl-C leaves, and the terminal is as it was."""
    with terminal(place, "attach") as screen:
        screen.until("1/2 ready")
        screen.until("dead failed")
        screen.until("tick ")
        screen.until("q leave")
        screen.press("\x03")

        assert 130 == screen.code()
        assert screen.echoes
        assert screen.written.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    assert "ready" == place.rows()["tick"]["state"]


def test_top_is_left_by_a_key(place: Place):
    """The edges first; `q` leaves the project as it was, and the terminal too."""
    with terminal(place, "top", rows=24, columns=80) as screen:
        screen.until("4 edges")
        screen.until("1/2 ready")
        screen.press("q")

        assert 0 == screen.code()
        assert screen.echoes
        assert screen.written.rstrip().endswith("\x1b[?25h\x1b[?1049l")


def test_key_restarts_a_worker(place: Place):
    """Chosen, asked, done, told: by the client, on the project's own bus."""
    pid = place.rows()["tick"]["pid"]
    with terminal(place, "attach") as screen:
        screen.until("1/2 ready")
        screen.press("1\x1b[B")
        screen.press("r")
        screen.until("restart tick?")
        screen.press("y")
        screen.until("tick was restarted")
        screen.press("q")

        assert 0 == screen.code()
    assert pid != place.rows()["tick"]["pid"]


def test_lines_without_a_terminal(place: Place):
    """Newest lines, those that come, and state changes over restarts of a worker."""
    looking = place.start("attach", "-n", "1")
    looking.until("tick ")
    row = place.rows()["tick"]
    os.kill(row["pid"], signal.SIGKILL)
    rows = place.until(lambda rows: rows["tick"]["pid"] not in {None, row["pid"]})
    looking.until(f"tick {rows['tick']['pid']}")
    done = looking.end()

    assert 130 == done.code
    assert "ready" in done.out
    assert "the broker is ready at unix://" in done.out


def test_closed_outputs_hold_nothing(place: Place):
    """A terminal that was closed, a reader that left."""
    with terminal(place, "attach") as screen:
        screen.until("1/2 ready")
        screen.hang_up()
        wait_for(lambda: screen.process.poll() is not None)
    piped = subprocess.run(
        ["/bin/sh", "-c", f"{PBUS} attach | head -n 2"],
        cwd=place.folder, env=place.cli.environ, capture_output=True, text=True, timeout=30,
    )  # fmt: skip

    assert 2 == piped.stdout.count("\n")
    assert "Traceback" not in piped.stderr


def test_ends_with_the_project(place: Place):
    """`down` ends all that look on, with 0; without a project it is exit code 3."""
    looking = place.start("attach")
    looking.until("tick ")
    with terminal(place, "attach") as screen:
        screen.until("1/2 ready")
        place.run("down")
        assert 0 == screen.code()
    done, none = looking.done(), place.tell("attach")

    assert 0 == done.code
    assert "tock has stopped" in done.err
    assert (3, "") == (none.code, none.out)
