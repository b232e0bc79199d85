"""Stacks of real processes that hang, and of those that must not be disturbed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from pbus.errors import StacksUnavailableError
from pbus.process.system import stack_request
from pbus.process.system.stack_request import read_stacks
from pbus.runner.stack_dump import FILE_NAME, NUMBER
from pbus.stack_values import ProcessStacks
from support import hanging_program
from support.waiting import PATIENCE_S


@contextlib.contextmanager
def hanging(how: str) -> Iterator["subprocess.Popen[str]"]:
    """The script, once it hangs."""
    path = str(Path(hanging_program.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, hanging_program.__file__, how],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert "hangs\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


HOOK = "hanging on_activated"


def functions(stacks: ProcessStacks, thread: str = "MainThread") -> list[str]:
    """The functions on the stack of a thread."""
    (found,) = [one for one in stacks.threads if one.name == thread]
    return [frame.function for frame in found.frames]


def waiting(stacks: ProcessStacks) -> set[str]:
    """The tasks that wait."""
    return {task.name for task in stacks.tasks or () if task.waits_for}


def until_shown(pid: int, claim: Callable[[ProcessStacks], bool]) -> ProcessStacks:
    """The stacks of a process as soon as a claim holds: it says a moment before that it hangs."""
    stacks = read_stacks(pid)
    deadline = time.monotonic() + PATIENCE_S
    while not claim(stacks):
        assert time.monotonic() < deadline, stacks
        stacks = read_stacks(pid)
    return stacks


def test_tasks_that_wait():
    """Names, what they wait for, and the whole way through pbus into the user's code."""
    with hanging("waits") as process:
        stacks = until_shown(process.pid, lambda found: HOOK in waiting(found))
        again = read_stacks(process.pid)
        assert process.poll() is None
    tasks = {task.name: task for task in stacks.tasks or ()}
    hook = tasks[HOOK]
    assert ["Hanging.on_activated", "Hanging.hang"] == [one.function for one in hook.frames][-2:]
    assert hook.waits_for.startswith("tasks Task-")
    assert hook.waits_for.endswith(", two")
    assert ["wait_long", "sleep"] == [one.function for one in tasks["two"].frames]
    assert "a future" == tasks["two"].waits_for
    assert hook.frames[-1].file == hanging_program.__file__
    assert not any(task.is_running for task in tasks.values())
    assert "select" == functions(stacks)[-1]
    assert functions(stacks, "helper")
    assert set(tasks) == {task.name for task in again.tasks or ()}


@pytest.mark.parametrize("how", ["sleeps", "computes"])
def test_loop_that_is_blocked_by_python_code(how: str):
    """The main thread shows where, and the tasks are there, the one that runs marked."""
    with hanging(how) as process:
        last = {"sleeps": "sleep_long", "computes": "hang"}[how]
        stacks = until_shown(process.pid, lambda found: functions(found)[-1] == last)
        assert process.poll() is None
    assert {"on_activated", "hang"} <= set(functions(stacks))
    assert [HOOK] == [task.name for task in stacks.tasks or () if task.is_running]


def test_loop_that_is_blocked_in_c(monkeypatch: pytest.MonkeyPatch):
    """Python code does not run then; the stacks of the threads are there all the same."""
    monkeypatch.setattr(stack_request, "_TASKS_S", 0.3)
    with hanging("in C") as process:
        stacks = until_shown(process.pid, lambda found: found.tasks is None)
        assert process.poll() is None
    (main,) = [one for one in stacks.threads if one.frames[-1].function == "hang"]
    assert main.name.startswith("0x")


def test_own_signals_of_the_program_work():
    """Its faulthandler and its handlers for other signals are untouched."""
    with hanging("own signals") as process:
        lines = [process.stdout.readline().strip()]
        while lines[-1] != "still here":
            lines.append(process.stdout.readline().strip())
        assert "own handler" in lines
        assert any(line.endswith(" in hang") for line in lines)
        assert read_stacks(process.pid).tasks


@pytest.mark.parametrize(
    ("how", "reason"), [("never", "no running pbus worker"), ("takes it", "no running pbus worker")]
)
def test_process_without_stacks_gets_no_signal(how: str, reason: str):
    """One that has no runner, or uses the signal itself, is left alone."""
    with hanging(how) as process:
        with pytest.raises(StacksUnavailableError, match=reason) as caught:
            read_stacks(process.pid)
        assert f"py-spy dump --pid {process.pid}" in str(caught.value.hint)
        assert caught.value.is_foreign
        assert process.poll() is None


def test_fork_gets_no_signal():
    """A fork has the file, but not the handler: the signal would end it."""
    with hanging("forks") as process:
        child = int(process.stdout.readline())
        try:
            with pytest.raises(StacksUnavailableError, match="a fork of a worker's process"):
                read_stacks(child)
            os.kill(child, 0)
            assert read_stacks(process.pid).tasks
        finally:
            os.kill(child, signal.SIGKILL)


def test_fork_that_still_has_the_handler(monkeypatch: pytest.MonkeyPatch):
    """Between the fork and the reset of its handlers the signal is blocked, and is not sent."""
    statuses = iter([{"SigBlk": f"{1 << NUMBER - 1:x}", "SigCgt": "ffffffffffffffff"}, {}])
    monkeypatch.setattr(stack_request, "_status", lambda _pid: next(statuses))
    with pytest.raises(StacksUnavailableError, match="a fork of a worker's process"):
        stack_request._refuse_deaf(os.getpid())


def test_stopped_process_is_named():
    """It could not answer, and says what to do."""
    with hanging("waits") as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        with pytest.raises(StacksUnavailableError, match=f"stopped: `kill -CONT {process.pid}`"):
            read_stacks(process.pid)
        process.send_signal(signal.SIGCONT)
        assert read_stacks(process.pid).tasks


def test_ended_process():
    """A process that is gone has none."""
    with subprocess.Popen(["true"]) as process:
        process.wait(PATIENCE_S)
    with pytest.raises(StacksUnavailableError, match="there is no such process here"):
        read_stacks(process.pid)


def test_several_that_ask_at_once():
    """Each gets an answer of its own."""
    with hanging("waits") as process, ThreadPoolExecutor(4) as pool:
        until_shown(process.pid, lambda stacks: "two" in waiting(stacks))
        found = list(pool.map(read_stacks, [process.pid] * 4))
    assert [True] * 4 == [any(task.name == "two" for task in one.tasks or ()) for one in found]


def test_other_user_is_named(monkeypatch: pytest.MonkeyPatch):
    """Where the system refuses, the error says whose the process is."""

    def refuse(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StacksUnavailableError, match=f"it belongs to user {os.getuid()}"):
        read_stacks(os.getpid())


@pytest.mark.parametrize(
    "answer",
    [
        b"\x1e{}\n",
        b'\x1e{"tasks": [{"name": 7}]}\n',
        b'Thread 0x1 (most recent call first):\n  File "x", line 99999 in \xff\n\x1enull\n',
        b"garbage \x00\xff\n\x1e[[[\n",
    ],
)
def test_strange_answers(answer: bytes):
    """A process of this user may write anything there."""
    descriptor = os.memfd_create(FILE_NAME)
    before = signal.signal(NUMBER, lambda *_: os.pwrite(descriptor, answer, 0))
    try:
        with ThreadPoolExecutor(1) as pool:
            stacks = pool.submit(read_stacks, os.getpid()).result(PATIENCE_S)
    finally:
        signal.signal(NUMBER, before)
        os.close(descriptor)
    assert stacks.tasks is None
    assert msgspec.json.encode(stacks)
