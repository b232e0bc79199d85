"""What a launcher leaves behind, and whose processes may be signalled: signals, orphans, users."""

import os
import signal
import sys

import psutil
import pytest

from support.cli_env import CliEnv, Place, can_run, living, wait_for

# Everything that can be ignored is, SIGHUP as by nohup; everything that can be blocked is.
ROUGH = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(sys.argv[1], sys.argv[1:])
"""
# As a container's init that runs pbus instead of itself.
SUBREAPER = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
POWERLESS = ("setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill", "--")  # not root's kill

SIGNALS = """
name: signals
workers:
  once: {command: [sh, -c, "exit 0"], restart: on-failure}
  fails: {command: [sh, -c, "exit 3"], restart: never}
  masks: {command: [sh, -c, "grep Sig /proc/self/status; exec sleep 600"]}
  hosted: {worker: "workers:Masks"}
"""
MASKS = """
import asyncio, pathlib, pbus
class Masks(pbus.BaseWorker):
    async def start(self):
        code = "grep Sig /proc/self/status"
        process = await asyncio.create_subprocess_exec("sh", "-c", code)
        assert await process.wait() == 0
"""
# Orphans without end, each of which ends at once.
ORPHANS = """
name: orphans
workers:
  mother: {command: [sh, -c, "while :; do (sleep 0.5 & ) ; sleep 0.1; done"]}
"""
MANY = """
name: many
workers:
  many: {command: [sleep, "600"], replicas: 100}
"""
FOREIGN = """
name: foreign
workers:
  own: {command: [sleep, "600"]}
  other: {command: [setpriv, --reuid, "65534", --clear-groups, sleep, "600"]}
"""


def test_signals_are_as_usual():
    """Ignored and blocked signals of the launcher change no exit code and reach no child."""
    with CliEnv(sys.executable, "-c", ROUGH) as cli:
        place = cli.place("signals", {"topology.yaml": SIGNALS, "workers.py": MASKS})
        up = place.start("up", "--plain")
        rows = wait_for(lambda: _settled(place))
        assert ("exited", 0) == (rows["once"]["state"], rows["once"]["restarts"])
        assert ("failed", 0) == (rows["fails"]["state"], rows["fails"]["restarts"])
        assert "exited with code 3" in "\n".join(place.logs("fails"))
        for name in ("masks", "hosted"):
            masks = dict(line.split(":\t") for line in place.logs(name) if "Sig" in line)
            ignored = int(masks["SigIgn"], 16)
            assert (0, {signal.SIGHUP}) == (int(masks["SigBlk"], 16), _numbers(ignored)), name

        up.process.send_signal(signal.SIGHUP)  # as nohup promised
        assert wait_for(place.rows)["masks"]["state"] == "ready"
        assert 143 == up.end(signal.SIGTERM).code


def _numbers(mask: int) -> set[int]:
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


def _settled(place: Place) -> dict[str, dict[str, object]] | None:
    rows = place.rows()
    is_settled = rows and "ready" == rows["masks"]["state"] == rows["hosted"]["state"]
    return rows if is_settled and rows["once"]["state"] == "exited" else None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
@pytest.mark.parametrize(
    "through",
    [
        (sys.executable, "-c", SUBREAPER),
        pytest.param(
            NAMESPACE, marks=pytest.mark.skipif(not can_run(*NAMESPACE), reason="needs root")
        ),
    ],
    ids=["subreaper", "pid-1"],
)
def test_orphans_are_reaped(through: tuple[str, ...]):
    """As the init of a container pbus reaps orphans, and ends in order when it is told to."""
    with CliEnv(*through) as cli:
        place = cli.place("orphans", {"topology.yaml": ORPHANS})
        up = place.start("up", "--plain")
        up.until("mother * ready")
        init = psutil.Process(up.process.pid)
        if through is NAMESPACE:
            (init,) = init.children()
        seen: set[int] = set()

        def orphans() -> int:
            seen.update(child.pid for child in init.children() if child.name() == "sleep")
            return len(seen)

        wait_for(lambda: orphans() >= 3)
        wait_for(lambda: not any(map(psutil.pid_exists, seen)))
        family = init.children(recursive=True)
        if through is NAMESPACE:
            init.send_signal(signal.SIGTERM)
            assert 143 == up.done().code
        else:
            init.kill()
        wait_for(lambda: not living(family))


@pytest.mark.parametrize(("limit", "started"), [("-Sn", 100), ("-n", 1)])
def test_open_files_run_out(limit: str, started: int):
    """A low soft limit on open files is raised; a hard one costs starts, and never the project."""
    with CliEnv("sh", "-c", f'ulimit {limit} 256 && exec "$0" "$@"') as cli:
        place = cli.place("many", {"topology.yaml": MANY})
        assert place.run("up", "-d").code == 0

        def states() -> list[str]:
            return [str(row["state"]) for row in place.rows().values()]

        wait_for(lambda: states().count("ready") >= started)
        if limit == "-n":
            wait_for(lambda: states().count("backoff") >= 10)
            text = "Too many open files (of 256 allowed"
            wait_for(lambda: text in "\n".join(place.logs("many.100")))
        assert 0 == place.run("down").code


@pytest.mark.skipif(
    os.geteuid() != 0 or not can_run(*POWERLESS), reason="needs root, to start what is another's"
)
def test_foreign_child_is_named():
    """A child of another user that may not be signalled: `stop` and `down` say so and fail."""
    with CliEnv(*POWERLESS) as cli:
        place = cli.place("foreign", {"topology.yaml": FOREIGN})
        place.up()
        other = psutil.Process(place.rows()["other"]["pid"])
        try:
            wait_for(lambda: other.uids().real == 65534)
            text = f"process {other.pid} (sleep) of user nobody"
            stopped = place.run("stop", "other")
            assert (1, True) == (stopped.code, text in stopped.err), stopped.err
            assert "ready" == place.rows()["own"]["state"]
            down = place.run("down")
            assert (1, True) == (down.code, text in down.err), down.err
            assert other.is_running()
        finally:
            other.kill()
