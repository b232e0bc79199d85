"""Stacks of threads and tasks as values."""

import msgspec


class StackFrame(msgspec.Struct, frozen=True):
    """A line of code that is being executed."""

    file: str
    line: int
    function: str


class TaskStack(msgspec.Struct, frozen=True, kw_only=True):
    """A task.

    Attributes:
        is_running: Whether its code runs just now: then its frames are those of the main thread.
        waits_for: As text; "" for a task that runs or is about to.
        frames: Outermost first.
    """

    name: str
    is_running: bool
    waits_for: str
    frames: tuple[StackFrame, ...]


class TaskDump(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks of a process.

    Attributes:
        left_out: The number of further tasks.
        threads: The names of threads, by identifier.
    """

    tasks: tuple[TaskStack, ...]
    left_out: int = 0
    threads: dict[str, str] = {}


class ThreadStack(msgspec.Struct, frozen=True, kw_only=True):
    """A thread; the frames are outermost first. `name` is its identifier where it is not known."""

    name: str
    frames: tuple[StackFrame, ...]


class ProcessStacks(msgspec.Struct, frozen=True, kw_only=True):
    """The stacks of a process.

    Attributes:
        threads: All threads, the main thread last.
        tasks: The tasks of its event loops; None where its main thread runs no Python code, as in
            a call of a C library.
        left_out: The number of further tasks.
    """

    pid: int
    threads: tuple[ThreadStack, ...]
    tasks: tuple[TaskStack, ...] | None
    left_out: int = 0
