"""The stacks of a process as lines of text."""

import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pbus
from pbus.client.stacks import WorkerStacks
from pbus.stack_values import ProcessStacks, StackFrame, TaskStack

_LIBRARIES: Final = (
    str(Path(pbus.__file__).parent),
    *(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
)


def stack_lines(found: WorkerStacks) -> Iterator[str]:
    """A heading, the threads, then the tasks: first those that run users' code.

    Args:
        found: The stacks of a worker that has some.
    """
    stacks = found.stacks
    yield f"{found.worker}, pid {found.pid}: {'no stacks' if stacks is None else _summary(stacks)}"
    if stacks is None:
        return
    for thread in stacks.threads:
        yield ""
        yield f"thread {thread.name}"
        yield from _frame_lines(thread.frames)
    tasks = sorted(stacks.tasks or (), key=lambda task: not task.is_running)
    yield from _task_lines([task for task in tasks if _has_users_code(task)])
    yield from _brief_lines([task for task in tasks if not _has_users_code(task)])
    if stacks.left_out:
        yield ""
        yield f"and {stacks.left_out:,} tasks more"


def _task_lines(tasks: Sequence[TaskStack]) -> Iterator[str]:
    for task in tasks:
        yield ""
        yield f"task {task.name}{_state(task)}"
        yield from _frame_lines(task.frames)


def _brief_lines(tasks: Sequence[TaskStack]) -> Iterator[str]:
    if tasks:
        yield ""
        yield "tasks without code of yours, each with its innermost line"
    for task in tasks:
        where = [line.strip() for line in _frame_lines(task.frames[-1:])]
        yield "  " + ": ".join([f"{task.name}{_state(task)}", *where])


def _summary(stacks: ProcessStacks) -> str:
    if stacks.tasks is None:
        return "its main thread runs no Python code, so its tasks are not known"
    running = [task.name for task in stacks.tasks if task.is_running]
    if running:
        return f"its event loop runs task {', '.join(running)}"
    return f"its event loop waits; {len(stacks.tasks) + stacks.left_out} tasks"


def _has_users_code(task: TaskStack) -> bool:
    return any(not frame.file.startswith(_LIBRARIES) for frame in task.frames)


def _state(task: TaskStack) -> str:
    if task.is_running:
        return " runs"
    return f" waits for {task.waits_for}" if task.waits_for else " is about to run"


def _frame_lines(frames: tuple[StackFrame, ...]) -> Iterator[str]:
    for frame in frames:
        yield f"  {frame.file}:{frame.line} {frame.function}"
