"""Children as real processes: environment, output, groups and the steps of a stop."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pbus.process.supervisor.worker import shutdown
from pbus.process.system import groups
from pbus.process.system.launch_plan import Launch, ProcessEnvironment, plan_launch
from pbus.process.system.output import CUT_MARK
from pbus.process.system.spawn import Child, spawn
from pbus.settings import BusSettings
from pbus.topology.model import WorkerInstance, WorkerSpec

PATIENCE_S = 15.0


class OutputLog:
    """Collects a child's lines and tells when one arrived."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._heard = asyncio.Event()

    def on_line(self, stream: str, text: str) -> None:
        self.lines.append((stream, text))
        self._heard.set()

    async def hear(self, text: str, times: int = 1) -> None:
        """Wait until a line was written so many times."""
        async with asyncio.timeout(PATIENCE_S):
            while [line for _, line in self.lines].count(text) < times:
                self._heard.clear()
                await self._heard.wait()


@contextlib.asynccontextmanager
async def python(code: str, output: OutputLog, **env: str) -> AsyncIterator[Child]:
    """A child that runs this code; nothing of its group is left afterwards."""
    launch = Launch(
        argv=(sys.executable, "-u", "-c", code), env={**os.environ, **env}, cwd=Path.cwd()
    )
    child = await spawn(launch, "incarnation", output.on_line, lambda: None)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGKILL)
        await asyncio.wait_for(child.wait(), PATIENCE_S)
        child.close()
        await asyncio.sleep(0)


async def finish(child: Child) -> int:
    """Wait for the exit and for the last line."""
    code = await asyncio.wait_for(child.wait(), PATIENCE_S)
    await child.wait_drained(PATIENCE_S)
    return code


def around(**changes: Any) -> ProcessEnvironment:
    values: dict[str, Any] = {
        "bus": BusSettings(
            url="redis://user:secret@db/0", channel="pbus:app", max_message_bytes=1000
        ),
        "session": "s1",
        "project": "app",
        "file": Path("/srv/app/topology.yaml"),
        "state": Path("/var/state/app"),
        "guard_token": "t1",
    }
    return ProcessEnvironment(**{**values, **changes})


def instance(**changes: Any) -> WorkerInstance:
    values: dict[str, Any] = {"name": "greeter", "working_dir": Path("/srv"), "joins": True}
    return WorkerInstance(name="greeter.1", spec=WorkerSpec(**{**values, **changes}))


def test_launch_keeps_secrets_out():
    """URL goes by environment, arguments and class by a file; process lists show only the name."""
    worker = instance(worker="app.workers:Greeter", args={"token": "hidden"}, active=False)

    launch = plan_launch(worker, around(), "incarnation1", {"PATH": "/bin", "PBUS_SPEC_FD": "3"})

    assert launch.argv == (sys.executable, "-P", "-m", "pbus.process.child", "greeter.1")
    assert Path("/srv") == launch.cwd
    assert {
        "PATH": "/bin",
        "PYTHONUNBUFFERED": "1",
        "PBUS_URL": "redis://user:secret@db/0",
        "PBUS_CHANNEL": "pbus:app",
        "PBUS_WORKER": "greeter.1",
        "PBUS_SESSION": "s1",
        "PBUS_INCARNATION": "incarnation1",
        "PBUS_PROJECT": "app",
        "PBUS_STATE_DIR": "/var/state/app",
        "PBUS_MAX_MESSAGE_BYTES": "1000",
        "PBUS_ENCODING": "json",
        "PBUS_KEY": "",
        "PBUS_ENCRYPT": "0",
        "PBUS_BACKEND": "redis",
        "PBUS_DELIVERY": "at-most-once",
        "PBUS_SEND_TIMEOUT": "10.0",
        "PBUS_STATS": "1",
        "PBUS_DIRECT": "0",
        "PBUS_MAX_BACKLOG": "100000",
        "PBUS_MAX_BACKLOG_BYTES": "268435456",
        "PBUS_WHEN_FULL": "wait",
        "PBUS_MAX_ATTEMPTS": "5",
        "PBUS_MAX_CRASH_ATTEMPTS": "3",
        "PBUS_GUARD_TOKEN": "t1",
    } == launch.env
    assert {
        "worker": "app.workers:Greeter",
        "args": {"token": "hidden"},
        "active": False,
        "files": ["/srv/app/topology.yaml"],
        "loop": "asyncio",
        "group": "greeter",
        "name": "",
        "after": [],
        "members": [],
    } == json.loads(launch.spec or b"")


def test_command_launched_as_given():
    """A command gets the variables and its own argv; the topology's env wins over the inherited."""
    worker = instance(command=("sh", "-c", "true"), env={"A": "2", "PYTHONUNBUFFERED": ""})

    launch = plan_launch(worker, around(), "incarnation1", {"A": "1", "PBUS_SPEC_FD": "3"})

    assert ("sh", "-c", "true") == launch.argv
    assert ("2", "", "greeter.1") == tuple(
        launch.env[key] for key in ("A", "PYTHONUNBUFFERED", "PBUS_WORKER")
    )
    assert "PBUS_SPEC_FD" not in launch.env
    assert launch.spec is None


@pytest.mark.parametrize(
    ("inherited", "own", "expected"),
    [
        ({}, {}, ["OURS"]),
        ({"PIPECAT_SETUP_FILES": "/a.py"}, {}, ["/a.py", "OURS"]),
        (
            {"PIPECAT_SETUP_FILES": "/a.py"},
            {"PIPECAT_SETUP_FILES": "/b.py::/c.py"},
            ["/b.py", "/c.py", "OURS"],
        ),
    ],
)
def test_a_program_of_pipecat_gets_a_setup_file(inherited, own, expected):
    """Beside those that the user has, once, also where one pbus starts another."""
    worker = instance(command=("bot",), pipecat=True, env=own)
    for _ in range(2):
        launch = plan_launch(worker, around(), "incarnation1", inherited)
        *others, ours = launch.env["PIPECAT_SETUP_FILES"].split(":")
        assert expected == [*others, "OURS"]
        assert "async def setup_worker_runner(runner" in Path(ours).read_text()
        worker = instance(command=("bot",), pipecat=True)
        inherited = launch.env

    plain = plan_launch(instance(command=("bot",)), around(), "incarnation1", {})
    assert "PIPECAT_SETUP_FILES" not in plain.env


def test_streams_kept_apart():
    """Both streams arrive as lines, a last one without newline too, and stdin is empty."""

    async def main() -> None:
        output = OutputLog()
        code = "import sys; print('hello'); sys.stderr.write('oops\\n' + sys.stdin.read() + 'end')"
        async with python(code, output) as child:
            assert 0 == await finish(child)
        assert [("err", "end"), ("err", "oops"), ("out", "hello")] == sorted(output.lines)

    asyncio.run(main())


def test_progress_is_seen_while_it_goes_on():
    """Each step of a progress bar is a line, also the last one while its program still works."""
    code = r"""
import sys, time
for step in ("10%", "57%"): sys.stderr.write("\r" + step)
time.sleep(600)
"""

    async def main() -> None:
        output = OutputLog()
        async with python(code, output):
            await output.hear("57%")
        assert [("err", "10%"), ("err", "57%")] == output.lines

    asyncio.run(main())


def test_flood_is_drained():
    """20 MB without a newline, and bytes that are no text, neither block the child nor pile up."""
    code = """
import sys
write = sys.stdout.buffer.write
for _ in range(20): write(b"x" * 1_000_000)
write(b"\\n\\xff\\xfe\\n")
"""

    async def main() -> None:
        output = OutputLog()
        async with python(code, output) as child:
            assert 0 == await finish(child)
        first, second = [text for _, text in output.lines]
        assert "x" * 65536 + CUT_MARK == first
        assert "\ufffd\ufffd" == second

    asyncio.run(main())


def test_child_leads_own_session():
    """A child is apart from our terminal, so Ctrl-C is ours to pass on."""

    async def main() -> None:
        output = OutputLog()
        async with python("input()", output) as child:
            assert child.pid != os.getsid(0)
            assert 1 == await finish(child)  # stdin is at its end

    asyncio.run(main())


def test_exit_seen_despite_inherited_output():
    """The exit is noticed although a grandchild keeps the pipes open."""
    code = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; print('grandchild', flush=True); time.sleep(60)"])
sys.exit(7)
"""

    async def main() -> None:
        output = OutputLog()
        async with python(code, output) as child:
            assert 7 == await asyncio.wait_for(child.wait(), PATIENCE_S)
            await output.hear("grandchild")
            assert not child.is_gone
            assert await shutdown.terminate_group(child, asyncio.Event())
            assert child.is_gone
            await child.wait_drained(PATIENCE_S)

    asyncio.run(main())


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.fork()
    os.write(1, b"deaf\\n")
    time.sleep(60)
os.write(1, b"deaf\\n")
time.sleep(60)
"""


def test_stubborn_family_is_killed():
    """A child that ignores SIGTERM, and its children and theirs, end within the deadlines."""

    async def main() -> None:
        output = OutputLog()
        async with python(STUBBORN, output) as child:
            await output.hear("deaf", times=3)
            family = [process.pid for process in groups.members({child.pid})]
            began = time.monotonic()
            patience = shutdown.Deadlines(ask_s=1000, term_s=0.3)
            end = shutdown.terminate(child, None, asyncio.Event(), patience)

            assert await asyncio.wait_for(end, PATIENCE_S)

            assert time.monotonic() - began >= 0.3
            assert -signal.SIGKILL == child.code
            assert [] == [pid for pid in family if _runs(pid)]

    asyncio.run(main())


def test_kill_now_skips_deadlines():
    """With kill_now set the group is killed at once, at whatever step it is."""

    async def main() -> None:
        output = OutputLog()
        kill_now = asyncio.Event()
        async with python(STUBBORN, output) as child:
            await output.hear("deaf")
            asked = asyncio.Event()

            async def ask() -> bool:
                asked.set()
                return True

            endless = shutdown.Deadlines(ask_s=1000, term_s=1000)
            going = asyncio.create_task(shutdown.terminate(child, ask, kill_now, endless))
            await asyncio.wait_for(asked.wait(), PATIENCE_S)
            kill_now.set()

            assert await asyncio.wait_for(going, PATIENCE_S)

    asyncio.run(main())


def test_asked_child_is_not_signalled(tmp_path: Path):
    """A child that ends on the bus message sees no signal."""
    code = """
import signal, sys, os, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
print("up", flush=True)
while not os.path.exists(os.environ["FLAG"]): time.sleep(0.01)
"""

    async def main(flag: Path) -> None:
        output = OutputLog()
        async with python(code, output, FLAG=str(flag)) as child:
            await output.hear("up")

            async def ask() -> bool:
                flag.touch()  # noqa: ASYNC240 - a file of no bytes
                return True

            patience = shutdown.Deadlines(ask_s=PATIENCE_S)
            assert await shutdown.terminate(child, ask, asyncio.Event(), patience)
            assert 0 == child.code

    asyncio.run(main(tmp_path / "flag"))


def test_given_time_counts_after_sigterm():
    """A program that does not join the bus gets the user's seconds when it is signalled."""
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(3)))
print("up", flush=True)
time.sleep(60)
"""

    async def main() -> None:
        output = OutputLog()
        async with python(code, output) as child:
            await output.hear("up")
            patience = shutdown.Deadlines(term_s=0.1)
            given = lambda: PATIENCE_S  # noqa: E731 - asked again and again
            assert await shutdown.terminate(
                child, None, asyncio.Event(), patience, job_time_s=given
            )
            assert 3 == child.code

    asyncio.run(main())


def test_later_order_shortens_the_time():
    """What is given is looked at while it runs: a second, shorter order counts."""

    async def main() -> None:
        output = OutputLog()
        async with python(STUBBORN, output) as child:
            await output.hear("deaf")
            given = [1000.0]

            async def ask() -> bool:
                given[0] = 0.0
                return True

            patience = shutdown.Deadlines(ask_s=1000, term_s=0.1)
            end = shutdown.terminate(
                child, ask, asyncio.Event(), patience, job_time_s=lambda: given[0]
            )
            assert await asyncio.wait_for(end, PATIENCE_S)

    asyncio.run(main())


def test_missing_program_says_which():
    """A program that is not there is an OSError that names it."""

    async def main() -> None:
        launch = Launch(argv=("/nowhere/prog",), env={}, cwd=Path("/"))
        with pytest.raises(FileNotFoundError) as caught:
            await spawn(launch, "incarnation", lambda *_: None, lambda: None)
        assert "/nowhere/prog" == caught.value.filename

    asyncio.run(main())


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
