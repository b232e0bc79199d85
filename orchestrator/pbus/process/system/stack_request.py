"""Asking a process on this machine for its stacks; see pbus.runner.stack_dump for its part."""

import contextlib
import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pbus.errors import StacksUnavailableError
from pbus.process.system import groups
from pbus.runner.stack_dump import FILE_NAME, NUMBER, TASKS_MARK
from pbus.stack_values import ProcessStacks, StackFrame, TaskDump, ThreadStack
from pbus.structs import DECODE_ERRORS

_LINK: Final = f"/memfd:{FILE_NAME} (deleted)"
_MOST_BYTES: Final = 16 * 1024 * 1024
_POLL_S: Final = 0.02
_THREADS_S: Final = 5.0  # the kernel delivers the signal to a process that is not stopped
_TASKS_S: Final = 2.0  # after the threads: for a main thread that runs Python code
_FORK_S: Final = 5.0  # while a process forks it blocks signals
_THREAD: Final = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)(?: \[(.*)\])? \(most recent")
_FRAME: Final = re.compile(r'  File "(.*)", line ([0-9]+) in (.*)')


def first_answer(
    pids: Sequence[int], *, threads_s: float = _THREADS_S, tasks_s: float = _TASKS_S
) -> ProcessStacks:
    """Ask the first process that has stacks, descendants included: a shell has none. Blocks.

    Arguments and errors as of `read_stacks`.
    """
    first: StacksUnavailableError | None = None
    for pid in _with_descendants(pids):
        try:
            return read_stacks(pid, threads_s=threads_s, tasks_s=tasks_s)
        except StacksUnavailableError as error:
            if not error.is_foreign:
                raise
            first = first or error
    if first is None:
        raise StacksUnavailableError(pids[0], "there is no such process here")
    raise first


def _with_descendants(pids: Sequence[int]) -> Iterator[int]:
    yield from pids
    for pid in pids:
        yield from (one.pid for one in groups.descendants(pid) if one.pid != os.getpid())


def read_stacks(
    pid: int, *, threads_s: float = _THREADS_S, tasks_s: float = _TASKS_S
) -> ProcessStacks:
    """Ask a process for its stacks and wait for them, some seconds at most. Blocks.

    A process that does not answer such requests gets no signal.

    Args:
        pid: The process.
        threads_s: Seconds to wait for the stacks of threads.
        tasks_s: Further seconds for those of tasks.

    Raises:
        StacksUnavailableError: It is not there, belongs to another user, is stopped, or does not
            answer.
    """
    try:
        process = os.pidfd_open(pid)
    except (ProcessLookupError, AttributeError, OSError) as error:
        raise StacksUnavailableError(pid, "there is no such process here") from error
    try:
        with _opened(pid) as file:
            _refuse_deaf(pid)
            os.ftruncate(file, 0)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, NUMBER)
            return _parsed(pid, _answer(pid, file, threads_s, tasks_s))
    finally:
        os.close(process)


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int]:
    """The file to which the process writes its stacks, for one that asks at a time."""
    try:
        found = _find(pid)
        if found is None:
            raise StacksUnavailableError(pid, "it has no running pbus worker", is_foreign=True)
        file = os.open(found, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        owner = _status(pid).get("Uid", "?").split()[0]
        raise StacksUnavailableError(pid, f"it belongs to user {owner}") from error
    except (FileNotFoundError, ProcessLookupError) as error:
        raise StacksUnavailableError(pid, "it has ended") from error
    try:
        _lock(pid, file)
        yield file
    finally:
        os.close(file)


def _find(pid: int) -> Path | None:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(link) == _LINK:  # noqa: PTH115 - its target is no path
                return link
    return None


def _lock(pid: int, file: int) -> None:
    deadline = time.monotonic() + _THREADS_S + _TASKS_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StacksUnavailableError(pid, "others ask it all the time") from None
            time.sleep(_POLL_S)
        else:
            return


def _refuse_deaf(pid: int) -> None:
    """Check that the signal is handled now: otherwise it would end the process, or wait."""
    deadline = time.monotonic() + _FORK_S
    while _has_signal(status := _status(pid), "SigBlk"):  # a fork has the handler for a moment
        if time.monotonic() > deadline:
            raise StacksUnavailableError(pid, "it blocks all signals", is_foreign=True)
        time.sleep(_POLL_S)
    if status.get("State", "").startswith(("T", "t")):
        raise StacksUnavailableError(pid, f"it is stopped: `kill -CONT {pid}` lets it go on")
    if not _has_signal(status, "SigCgt"):
        raise StacksUnavailableError(pid, "it is a fork of a worker's process", is_foreign=True)


def _has_signal(status: dict[str, str], kind: str) -> bool:
    return bool(int(status.get(kind, "0"), 16) & 1 << (NUMBER - 1))


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _answer(pid: int, file: int, threads_s: float, tasks_s: float) -> bytes:
    """Wait for the threads, and a little longer for the tasks."""
    deadline = time.monotonic() + threads_s
    answer, has_threads = b"", False
    while time.monotonic() < deadline:
        answer = os.pread(file, min(os.fstat(file).st_size, _MOST_BYTES), 0)
        if TASKS_MARK in answer and answer.endswith(b"\n"):
            return answer
        if answer and not has_threads:
            has_threads, deadline = True, time.monotonic() + tasks_s
        time.sleep(_POLL_S)
    if not answer:
        raise StacksUnavailableError(pid, f"no answer within {threads_s:g} s")
    return answer


def _parsed(pid: int, answer: bytes) -> ProcessStacks:
    text, _, rest = answer.partition(TASKS_MARK)
    dump = None
    with contextlib.suppress(*DECODE_ERRORS):
        dump = msgspec.json.decode(rest, type=TaskDump)
    names = {} if dump is None else dump.threads
    return ProcessStacks(
        pid=pid,
        threads=tuple(_threads(text.decode(errors="replace"), names)),
        tasks=None if dump is None else dump.tasks,
        left_out=0 if dump is None else dump.left_out,
    )


def _threads(text: str, names: dict[str, str]) -> Iterator[ThreadStack]:
    """Read the stacks as faulthandler writes them: innermost first."""
    name, frames = "", list[StackFrame]()
    for line in [*text.splitlines(), ""]:
        if found := _FRAME.fullmatch(line):
            frames.append(StackFrame(found[1], int(found[2]), found[3]))
        elif name and not line.strip():
            yield ThreadStack(name=name, frames=tuple(reversed(frames)))
            name = ""
        elif found := _THREAD.match(line):
            if name:
                yield ThreadStack(name=name, frames=tuple(reversed(frames)))
            ident = found[1].lstrip("0")
            name, frames = names.get(ident) or found[2] or f"0x{ident}", []
