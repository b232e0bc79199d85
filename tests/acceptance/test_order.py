"""What the file says about order, readiness and ends, by the command."""

import re

import pytest

from support.cli_env import CliEnv

pytestmark = pytest.mark.cli

TOPOLOGY = """
x-common: &common {stop: {grace: 5s}}
workers:
  api: {<<: *common, worker: 'workers:Api', depends_on: {db: ready, migrate: completed}}
  migrate: {command: [sh, -c, 'echo migrated'], depends_on: [db]}
  db:
    command: [sh, -c, 'while ! test -e go; do sleep 0.05; done; echo is open; exec sleep 1000']
    ready: {log: is open}
  shell: {command: [sleep, '1000'], profiles: [debug]}
"""
WORKERS = "from pbus import BaseWorker\nclass Api(BaseWorker): pass\n"
FILES = {"topology.yaml": TOPOLOGY, "workers.py": WORKERS}


def test_order_readiness_and_profiles(cli: CliEnv):
    """`up --wait` names everyone who is not ready and why; all come up in order, and go."""
    place = cli.place("ordered", FILES)
    done = place.run("up", "--wait", "--timeout", "3", "--profile", "debug")

    assert 4 == done.code, done
    for text in (
        "db (",
        "api (waiting for db to be ready)",
        "migrate (waiting for db to be ready)",
    ):
        assert text in done.err
    rows = place.rows()
    assert {"api": "waiting", "migrate": "waiting", "db": "starting", "shell": "ready"} == {
        name: row["state"] for name, row in rows.items()
    }
    assert "waiting for db to be ready" == rows["api"]["error"]
    assert "api: waiting for db to be ready" in place.run("ps").out

    (place.folder / "go").touch()
    place.until(lambda rows: rows["api"]["state"] == "ready")
    assert "exited" == place.rows()["migrate"]["state"]
    assert 0 == place.run("restart", "api").code
    assert 0 == place.run("down").code


def test_only_starts_what_is_needed(cli: CliEnv):
    """Dependencies come along, unless they are left out; a profile's worker comes by its name."""
    place = cli.place("needed", FILES)
    (place.folder / "go").touch()
    place.up("--only", "migrate,shell")
    assert {"migrate", "db", "shell"} == set(place.rows())
    assert 0 == place.run("down").code
    place.up("--only", "api", "--no-deps")
    assert {"api"} == set(place.rows())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--profile", "debgu"), "there is no profile 'debgu'; did you mean 'debug'?"),
        (("--only", "shel"), "there is no worker 'shel'; did you mean 'shell'?"),
    ],
)
def test_unknown_names_are_refused(cli: CliEnv, arguments: tuple[str, ...], expected: str):
    """With the nearest one."""
    done = cli.place("unknown-" + arguments[1], FILES).run("up", "-d", *arguments)
    assert 2 == done.code
    assert expected in done.err


def test_its_end_is_the_projects(cli: CliEnv):
    """`on_exit: stop` gives `up` the worker's exit code, and nothing is left."""
    text = """
name: once
workers:
  task: {command: [sh, -c, 'exit 7'], restart: never, on_exit: stop}
  other: {command: [sleep, '1000']}
"""
    place = cli.place("once", {"topology.yaml": text})
    assert 7 == place.run("up", "--plain").code


HOPELESS = """
workers:
  slow:
    command: [sh, ends.sh, slow]
    ready: {log: is up}
  failing: {command: [sh, -c, 'echo no database; exit 3'], restart: never, ready: notify}
  hanging: {command: [sleep, '1000'], ready: {tcp: 1, timeout: 1h}}
  on-slow: {command: [sh, ends.sh, on-slow, 0.5], depends_on: [slow]}
  stubborn: {command: [sh, -c, 'trap "" TERM; while :; do sleep 0.1; done'],
             depends_on: [on-slow], stop: {grace: 500ms}}
  on-failing: {command: [sleep, '1000'], depends_on: [failing]}
  on-hanging: {command: [sleep, '1000'], depends_on: {hanging: healthy}}
  last: {command: [sleep, '1000'], depends_on: [on-hanging, on-slow]}
  missing: {command: [no-such-program]}
"""
# Ready when the file `go` is there; writes its name when it ends, after a while.
ENDS = """
trap 'sleep ${2:-0}; echo $1 >> ends; exit 0' TERM
while :; do test -e go && test $1 = slow && echo is up; sleep 0.1; done
"""


def test_everyone_who_is_not_ready_is_named(cli: CliEnv):
    """`up --wait` tells of all that fail, hang, are slow or wait for such, why; stop goes backwards."""
    place = cli.place("hopeless", {"topology.yaml": HOPELESS, "ends.sh": ENDS})
    done = place.run("up", "--wait", "--timeout", "40")

    assert 1 == done.code, done
    told = dict(
        re.findall(
            r"^(?:error: )?worker '(.+)' (?:failed|is not ready): (.+)$", done.err, re.MULTILINE
        )
    )
    expected = {
        "failing": "exited with code 3; last line: no database",
        "on-failing": "a dependency",
        "missing": "cannot be started: No such file or directory: no-such-program",
        "slow": "starting, no line matches",
        "hanging": "starting, tcp 127.0.0.1:1",
        "on-slow": "waiting for slow to be ready",
        "stubborn": "waiting for on-slow to be ready",
        "on-hanging": "waiting for hanging to be healthy",
        "last": "waiting for on-hanging to be ready",
    }
    assert expected == {name: why[: len(expected[name])] for name, why in told.items()}
    assert "failing | no database" in done.err

    (place.folder / "go").touch()
    place.until(lambda rows: rows["stubborn"]["state"] == "ready")
    assert 0 == place.run("down").code
    assert "on-slow\nslow\n" == (place.folder / "ends").read_text()
    assert "was killed by SIGKILL" in place.run("logs", "stubborn").out

    assert 0 == place.run("up", "--wait", "--only", "stubborn").code
    assert 0 == place.run("down", "--timeout", "1").code  # wins over `grace`; others get as much
    assert "on-slow\nslow\n" * 2 == (place.folder / "ends").read_text()
