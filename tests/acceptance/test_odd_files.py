"""Pipes and the like in the place of a project's files: verbs end, and say what is in the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Place, wait_for
from support.odd_files import clear, put_odd

pytestmark = pytest.mark.cli

TOPOLOGY = "workers:\n  talker: {command: [sh, -c, 'echo hi; exec sleep 600']}\n"
HANGING = ["supervisor", "project.json", "logs/supervisor.log", "logs/valkey.log", "logs/guard.log"]


@pytest.fixture(scope="module")
def state(place: Place) -> Path:
    """The state folder of the project, which ran."""
    place.up()
    assert 0 == place.run("down").code
    (found,) = place.cli.state.glob("pbus/odd-*")
    return found


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A project with one worker."""
    return cli.place("odd", {"topology.yaml": TOPOLOGY})


@pytest.fixture(params=HANGING)
def path(request: pytest.FixtureRequest, state: Path) -> Iterator[Path]:
    """A file with a pipe in its place."""
    put_odd(state / request.param, "a named pipe")
    yield state / request.param
    clear(state / request.param)


def test_up_says_what_is_in_the_way(place: Place, path: Path):
    """At once, before anything runs; the verbs that look do not wait either."""
    done = place.tell("up", "-d")

    assert (1, "") == (done.code, done.out)
    assert f"cannot use {path}: it is a named pipe" in done.err
    assert "hint: remove it" in done.err
    for verb, code in (("ps", 3), ("logs", 0), ("down", 3), ("ls", 0)):
        assert code == place.tell(verb).code, verb
    assert [] == place.cli.processes()


def test_a_worker_runs_while_its_log_is_a_pipe(place: Place, state: Path):
    """`up` and `logs` say what is not kept; lines are kept again once the pipe is gone."""
    path = state / "logs" / "workers" / "talker.log"
    put_odd(path, "a named pipe")
    place_up = place.run("up", "-d")
    shown = place.tell("logs")

    assert (0, True) == (place_up.code, f"{path} is a named pipe" in place_up.err), place_up.err
    assert (0, True) == (shown.code, "what talker writes is not kept" in shown.err)
    clear(path)
    assert 0 == place.run("restart", "talker").code
    wait_for(lambda: "hi" in place.logs("talker"))
    for name in ("logs/valkey.log", "stop_timeout", "incarnations"):
        put_odd(state / name, "a named pipe")
    assert 0 == place.run("restart", "talker").code
    assert 0 == place.run("down", "--timeout", "1").code
    assert [] == place.cli.processes()
