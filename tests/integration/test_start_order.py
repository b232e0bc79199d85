"""Order of start and stop, readiness, health, restarts and ends, with real processes."""

import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from pbus.process.supervisor.worker import probing
from pbus.process.supervisor_events import Exited, GaveUp, Ready, Started
from pbus.topology.policy.policies import (
    BusProbe,
    Dependency,
    ExecProbe,
    HealthSpec,
    HttpProbe,
    LogProbe,
    NotifyProbe,
    ReadySpec,
    RestartSpec,
    StopSpec,
    TcpProbe,
)
from support.supervisor_helpers import Watched, program, supervised, topology

pytestmark = pytest.mark.redis

FOREVER = "import time; time.sleep(600)"
NEVER = RestartSpec(policy="never")
QUICK = RestartSpec(initial_s=0.01)
# Opens a port of its own, which it writes into a file, once the file `go` is there.
SERVER = """
import http.server, os, pathlib, time
while not os.path.exists("go"): time.sleep(0.01)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if not os.path.exists("sick") else 503); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
NOTIFIER = """
import os, socket, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
    while not os.path.exists("go"): time.sleep(0.01)
    one.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state and sockets of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def after(name: str, **how: Any) -> tuple[Dependency, ...]:
    """Wait for one worker."""
    return (Dependency(worker=name, **how),)


def order_of(watched: Watched, kind: type[Any]) -> list[str]:
    """The workers of which there were such events, in order."""
    return [event.worker for event in watched.all(kind)]


def play(main: Any) -> None:
    """Run a test's coroutine."""
    asyncio.run(main())


def test_starts_forward_and_stops_backward(tmp_path: Path):
    """Each waits until its dependency is ready; at the end the dependents go first."""
    slow = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('up'); time.sleep(600)"
    ready = ReadySpec(probe=LogProbe("^up$"))
    what = topology(
        tmp_path,
        program("top", FOREVER, tmp_path, depends_on=after("middle")),
        program("middle", FOREVER, tmp_path, depends_on=after("base"), replicas=2),
        program("base", slow, tmp_path, ready=ready),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            record = await watched.state("middle.1", "waiting")
            assert record.reason == "waiting for base to be ready"
            await watched.state("top", "waiting")
            await watched.nth(Started)
            assert ["base"] == order_of(watched, Started)
            (tmp_path / "go").touch()
            await watched.state("top", "ready")
            names = order_of(watched, Started)
            assert (names[0], names[-1]) == ("base", "top")
            assert 0 == await watched.stop()
            names = order_of(watched, Exited)
            assert (names[0], names[-1]) == ("top", "base")

    play(main)


def test_second_stop_kills_all_at_once(tmp_path: Path):
    """Who is in a hurry does not wait for the order."""
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    ready = ReadySpec(probe=LogProbe("up"))
    what = topology(
        tmp_path,
        program("base", FOREVER, tmp_path),
        program(
            "top",
            stubborn,
            tmp_path,
            depends_on=after("base"),
            ready=ready,
            stop=StopSpec(grace_s=600.0),
        ),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("top", "ready")
            watched.supervisor.request_stop("first")
            await watched.state("top", "stopping")
            assert "ready" == watched.process("base").state
            watched.supervisor.request_stop("second")
            assert 0 == await watched.code()

    play(main)


def test_one_shot_first(tmp_path: Path):
    """`completed` waits for a good end; a failed one fails who needs it, not who does not."""
    what = topology(
        tmp_path,
        program("good", "pass", tmp_path),
        program("bad", "raise SystemExit(3)", tmp_path, restart=NEVER),
        program("a", FOREVER, tmp_path, depends_on=after("good", condition="completed")),
        program("b", FOREVER, tmp_path, depends_on=after("bad", condition="completed")),
        program(
            "c", FOREVER, tmp_path, depends_on=after("bad", condition="completed", required=False)
        ),
        program("d", FOREVER, tmp_path, depends_on=after("b")),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("a", "ready")
            await watched.state("c", "ready")
            record = await watched.state("b", "failed")
            assert record.reason == "a dependency failed: bad (failed)"
            assert (await watched.state("d", "failed")).reason == "a dependency failed: b (failed)"
            names = order_of(watched, Started)
            assert {"b", "d"}.isdisjoint(names)
            assert names.index("good") < names.index("a")

    play(main)


def test_waiting_worker_can_be_stopped_and_started(tmp_path: Path):
    """A command ends the wait; another begins it again, and a stopped dependency is waited for."""
    what = topology(
        tmp_path,
        program("base", FOREVER, tmp_path),
        program("top", FOREVER, tmp_path, depends_on=after("base")),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("top", "ready")
            workers = watched.supervisor.workers
            workers["base"].stop()
            await watched.state("base", "exited")
            workers["top"].restart()
            record = await watched.state("top", "waiting")
            assert record.reason == "waiting for base to be ready (stopped)"
            workers["top"].stop()
            await watched.state("top", "exited")
            workers["top"].start()
            await watched.state("top", "waiting")
            workers["base"].start()
            await watched.state("top", "ready")

    play(main)


def test_restarts_with_its_dependency(tmp_path: Path):
    """`restart: true` restarts who waits for it; others go on."""
    what = topology(
        tmp_path,
        program("base", FOREVER, tmp_path, restart=RestartSpec(initial_s=0.01)),
        program("with", FOREVER, tmp_path, depends_on=after("base", restart=True)),
        program("without", FOREVER, tmp_path, depends_on=after("base")),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("with", "ready")
            await watched.state("without", "ready")
            watched.supervisor.workers["base"].restart()
            await watched.until(lambda: order_of(watched, Ready).count("with") == 2)
            assert 1 == order_of(watched, Started).count("without")

    play(main)


@pytest.mark.parametrize("kind", ["http", "tcp", "exec", "notify"])
def test_ready_when_its_probe_says_so(tmp_path: Path, free_port: int, kind: str):
    """A program is ready when the probe passes, and not before."""
    probe: Any = {
        "http": HttpProbe(f"http://127.0.0.1:{free_port}/"),
        "tcp": TcpProbe("127.0.0.1", free_port),
        "exec": ExecProbe((
            sys.executable,
            "-c",
            "import os, sys; sys.exit(not os.path.exists('go'))",
        )),
        "notify": NotifyProbe(),
    }[kind]
    code = NOTIFIER if kind == "notify" else SERVER
    one = program("one", code, tmp_path, env={"PORT": str(free_port)}, ready=ReadySpec(probe=probe))
    what = topology(tmp_path, one, program("next", FOREVER, tmp_path, depends_on=after("one")))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.nth(Started)
            await watched.state("next", "waiting")
            assert "starting" == watched.process("one").state
            (tmp_path / "go").touch()
            await watched.state("next", "ready")

    play(main)


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        (ReadySpec(probe=LogProbe("never said"), timeout_s=0.1), "no line matches 'never said'"),
        (ReadySpec(probe=NotifyProbe(), timeout_s=0.1), "it has not sent READY=1"),
        (ReadySpec(probe=TcpProbe("127.0.0.1", 1), timeout_s=0.5), "tcp 127.0.0.1:1"),
    ],
)
def test_not_ready_in_time_has_failed(tmp_path: Path, ready: ReadySpec, expected: str):
    """It is ended, counts as a crash, and the reason is shown."""
    one = program(
        "one", FOREVER, tmp_path, ready=ready, restart=RestartSpec(initial_s=0.01, max_exits=2)
    )

    async def main() -> None:
        async with supervised(topology(tmp_path, one)) as watched:
            assert 1 == await watched.code()
            (gave_up,) = watched.all(GaveUp)
            assert "not ready within" in gave_up.reason
            assert expected in gave_up.reason
            assert [-signal.SIGTERM] * 2 == [one.code for one in watched.all(Exited)]

    play(main)


def test_worker_that_never_registers_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A worker on the bus has a deadline without asking for one."""
    monkeypatch.setattr(probing, "_REGISTERED", ReadySpec(probe=BusProbe(), timeout_s=0.2))
    what = topology(tmp_path, program("one", FOREVER, tmp_path, joins=True, restart=NEVER))

    async def main() -> None:
        async with supervised(what) as watched:
            assert 1 == await watched.code()
            (gave_up,) = watched.all(GaveUp)
            expected = "not ready within 0.2 s: it has not registered on the bus as ready"
            assert expected == gave_up.reason

    play(main)


@pytest.mark.parametrize("restarts", [True, False])
def test_unhealthy(tmp_path: Path, free_port: int, restarts: bool):
    """After so many failed checks it is restarted, or shown until it is healthy again."""
    (tmp_path / "go").touch()
    url = f"http://127.0.0.1:{free_port}/"
    health = HealthSpec(probe=HttpProbe(url), every_s=0.05, failures=2, restart=restarts)
    one = program(
        "one",
        SERVER,
        tmp_path,
        env={"PORT": str(free_port)},
        health=health,
        restart=QUICK,
        ready=ReadySpec(probe=HttpProbe(url)),
    )
    what = topology(
        tmp_path,
        one,
        program("next", FOREVER, tmp_path, depends_on=after("one", condition="healthy")),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("next", "ready")
            (tmp_path / "sick").touch()
            if restarts:
                record = await watched.state("one", "backoff")
            else:
                record = await watched.state("one", "unhealthy")
            assert "checks failed" in (record.reason or "")
            assert "status 503" in (record.reason or "")
            (tmp_path / "sick").unlink()
            await watched.state("one", "ready")
            assert (2 if restarts else 1) == order_of(watched, Started).count("one")

    play(main)


def ends(code: int) -> str:
    """A program that ends with this code."""
    return f"raise SystemExit({code})"


@pytest.mark.parametrize(
    ("code", "on_exit", "expected"),
    [(0, "stop", 0), (7, "stop", 7), (7, "fail", 7), (0, "fail", None), (7, "ignore", None)],
)
def test_end_of_a_worker_ends_the_project(
    tmp_path: Path, code: int, on_exit: Any, expected: int | None
):
    """With `stop` always, with `fail` when it failed; its code is the run's."""
    what = topology(
        tmp_path,
        program("one", ends(code), tmp_path, on_exit=on_exit, restart=NEVER),
        program("other", FOREVER, tmp_path),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            if expected is None:
                await watched.until(lambda: watched.process("one").state in {"exited", "failed"})
                await watched.state("other", "ready")
                assert 0 == await watched.stop()
            else:
                assert expected == await watched.code()
                assert "other" in order_of(watched, Exited)

    play(main)


def test_signal_is_an_exit_code(tmp_path: Path):
    """A decisive worker that was killed ends the run with 128 + the signal."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    what = topology(tmp_path, program("one", code, tmp_path, on_exit="stop", restart=NEVER))

    async def main() -> None:
        async with supervised(what) as watched:
            assert 128 + signal.SIGKILL == await watched.code()

    play(main)


def test_other_codes_are_good(tmp_path: Path):
    """`success_exit_codes` are good ends: not restarted, not failed, and completed."""
    what = topology(
        tmp_path,
        program("one", ends(130), tmp_path, success_exit_codes=frozenset({130})),
        program("next", ends(0), tmp_path, depends_on=after("one", condition="completed")),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            assert 0 == await watched.code()
            assert ["one", "next"] == order_of(watched, Started)

    play(main)


def test_stopped_as_it_asks(tmp_path: Path):
    """A signal of its own, after a command of its own, which runs in its surroundings."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(5))\n"
        "print('up', flush=True); time.sleep(600)"
    )
    command = (sys.executable, "-c", "import os; open('stopped', 'w').write(os.environ['WHO'])")
    one = program(
        "one",
        code,
        tmp_path,
        env={"WHO": "one"},
        ready=ReadySpec(probe=LogProbe("up")),
        stop=StopSpec(signal="SIGINT", command=command),
    )

    async def main() -> None:
        async with supervised(topology(tmp_path, one)) as watched:
            await watched.state("one", "ready")
            assert 0 == await watched.stop()
            assert [5] == [one.code for one in watched.all(Exited)]

    play(main)
    assert "one" == (tmp_path / "stopped").read_text()


def test_stop_command_that_fails_is_noted(tmp_path: Path):
    """The signal follows anyway."""
    one = program("one", FOREVER, tmp_path, stop=StopSpec(command=("no-such-program",)))

    async def main() -> None:
        async with supervised(topology(tmp_path, one)) as watched:
            await watched.state("one", "ready")
            assert 0 == await watched.stop()
            said = [one.text for one in watched.events if getattr(one, "stream", "") == "pbus"]
            assert any("stop command: exec no-such-program" in text for text in said)

    play(main)


def test_grace_is_the_users(tmp_path: Path):
    """Who does not end within its grace is killed; who has a long one is waited for."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    one = program(
        "one", code, tmp_path, ready=ReadySpec(probe=LogProbe("up")), stop=StopSpec(grace_s=0.05)
    )

    async def main() -> None:
        async with supervised(topology(tmp_path, one)) as watched:
            await watched.state("one", "ready")
            assert 0 == await watched.stop()
            assert [-signal.SIGKILL] == [one.code for one in watched.all(Exited)]

    play(main)
