"""Stacks of this process on request: of its threads, and of the tasks of its event loops.

The request is a signal that programs do not use. faulthandler writes the stacks of all threads at
once, whatever the main thread does; the tasks follow as soon as Python code runs there. Both go to
a file in memory that others of this user find among the descriptors of this process.
"""

import asyncio
import contextlib
import faulthandler
import fcntl
import gc
import inspect
import os
import signal
import threading
import types
import weakref
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pbus.bus.local.lane_hold import InlineLaneHold
from pbus.concurrency.forks import drop_signal, hold_signal
from pbus.stack_values import StackFrame, TaskDump, TaskStack

FILE_NAME: Final = "pbus-stacks"
NUMBER: Final = getattr(signal, "SIGRTMAX", 64) - 9  # no library is known to use it
TASKS_MARK: Final = b"\x1e"  # stands before the tasks, which are JSON in one line
_MOST_TASKS: Final = 1_000
_MOST_FRAMES: Final = 50  # of a task
_MOST_NAMES: Final = 5
# Of the interpreter: they lead to a coroutine or generator without an attribute for it.
_WRAPPERS: Final = {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"}

_DRIVE: Final = InlineLaneHold._drive.__code__  # noqa: SLF001 - of one library

_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_descriptors: list[int] = []  # of the file, once for each user of it


@contextlib.contextmanager
def stacks_on_request() -> Iterator[None]:
    """Answer requests for stacks within a block, with the tasks of the running loop if there is one.

    Does nothing where the system has no files in memory, outside of the main thread, or where the
    program uses the signal itself.
    """
    with contextlib.suppress(RuntimeError):
        _loops.add(asyncio.get_running_loop())
    is_listening = _listen()
    try:
        yield
    finally:
        if is_listening:
            _forget()


def _listen() -> bool:
    if _descriptors:
        _descriptors.append(_descriptors[0])
        return True
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and hasattr(os, "memfd_create") and _is_unused(signal.getsignal(NUMBER))):
        return False
    descriptor = os.memfd_create(FILE_NAME)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)  # who asks empties it before
    signal.signal(NUMBER, _write_tasks)
    faulthandler.register(NUMBER, file=descriptor, all_threads=True, chain=True)
    hold_signal(NUMBER, signal.SIG_DFL)
    _descriptors.append(descriptor)
    return True


def _is_unused(handler: Any) -> bool:
    return handler in {signal.SIG_DFL, signal.SIG_IGN}


def _forget() -> None:
    descriptor = _descriptors.pop()
    if _descriptors:
        return
    faulthandler.unregister(NUMBER)
    signal.signal(NUMBER, signal.SIG_IGN)  # a request that is on its way must not end the process
    drop_signal(NUMBER)
    os.close(descriptor)


def _write_tasks(_number: int, _frame: Any) -> None:
    """Write the tasks behind the threads. Runs between any two instructions: it must not raise."""
    with contextlib.suppress(Exception):  # the threads are there all the same
        os.write(_descriptors[0], TASKS_MARK + msgspec.json.encode(_describe()) + b"\n")


def _describe() -> TaskDump:
    tasks = [task for loop in list(_loops) for task in asyncio.all_tasks(loop)]
    running = {asyncio.current_task(loop) for loop in list(_loops)}
    shown = sorted(tasks, key=lambda task: task.get_name())[:_MOST_TASKS]
    return TaskDump(
        tasks=tuple(_stack_of(task, is_running=task in running) for task in shown),
        left_out=len(tasks) - len(shown),
        threads={f"{one.ident:x}": one.name for one in threading.enumerate() if one.ident},
    )


def _stack_of(task: asyncio.Task[Any], *, is_running: bool) -> TaskStack:
    return TaskStack(
        name=task.get_name(),
        is_running=is_running,
        waits_for=_awaited(getattr(task, "_fut_waiter", None)),
        frames=tuple(_frames(task.get_coro())),
    )


def _frames(coroutine: Any) -> Iterator[StackFrame]:
    """The frames of a coroutine and of what it awaits, outermost first."""
    for _ in range(_MOST_FRAMES):
        if type(coroutine).__name__ in _WRAPPERS:
            coroutine = next(filter(inspect.isawaitable, gc.get_referents(coroutine)), None)
        frame = _first_of(coroutine, "cr_frame", "gi_frame", "ag_frame")
        if not isinstance(frame, types.FrameType):
            return
        code = frame.f_code
        if code is _DRIVE:  # it sends to the handler by itself
            coroutine = frame.f_locals.get("work")
            continue
        yield StackFrame(code.co_filename, frame.f_lineno, code.co_qualname)
        coroutine = _first_of(coroutine, "cr_await", "gi_yieldfrom", "ag_await")


def _first_of(value: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(value, name, None))), None)


def _awaited(future: Any) -> str:
    """The object that a task waits for, as text."""
    if future is None:
        return ""
    if isinstance(future, asyncio.Task):
        return f"task {future.get_name()}"
    children = getattr(future, "_children", None)  # of gather()
    if isinstance(children, list):
        names = [one.get_name() for one in children if isinstance(one, asyncio.Task)]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return f"tasks {', '.join(names[:_MOST_NAMES])}{more}"
    return "a future"
