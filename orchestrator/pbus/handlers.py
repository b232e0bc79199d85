"""`@job` and `@worker_ready`: mark a worker's methods, and find the marked ones of a class."""

import enum
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

import msgspec

from pbus.errors import HandlerDefinitionError

_MARKS = "__pbus_marks__"

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


class Pending(enum.Enum):
    """The type of PENDING."""

    PENDING = "pending"


PENDING: Final = Pending.PENDING
"""Returned by a job handler that will answer later, with send_job_response()."""


class JobMark(msgspec.Struct, frozen=True):
    """Says that a method does the jobs of this name, one at a time when sequential."""

    name: str
    sequential: bool = False


class ReadyMark(msgspec.Struct, frozen=True):
    """Says that a method is called when the worker of this name is ready."""

    name: str


class JobHandler(msgspec.Struct, frozen=True):
    """How a worker class does the jobs of one name: by which method."""

    method: str
    sequential: bool


class Handlers(msgspec.Struct, frozen=True):
    """What is marked in one worker class: job handlers and ready handlers by name."""

    jobs: dict[str, JobHandler]
    ready: dict[str, str]


def job(*, name: str, sequential: bool = False) -> Callable[[F], F]:
    """Have an async method do the jobs of this name.

    The method gets the BusJobRequestMessage. What it returns is the answer: a dict as it is, any
    other value under "result", None as {}. What it raises is answered as an error. It may also
    answer itself, with send_job_response(), or return PENDING and answer later.

    Args:
        name: What requesters ask for.
        sequential: Do these jobs one after another, in the order they came.

    Raises:
        HandlerDefinitionError: The method cannot be called so.
    """

    def mark(function: F) -> F:
        return _mark(function, JobMark(name, sequential), "@job", "request")

    return mark


def worker_ready(*, name: str) -> Callable[[F], F]:
    """Have an async method called, with WorkerReadyData, when the worker of this name is ready.

    Each time it becomes ready, so also after a restart; for a group "x" of replicas, when its first
    is ready. At once when it is ready already.

    Raises:
        HandlerDefinitionError: The method cannot be called so.
    """

    def mark(function: F) -> F:
        return _mark(function, ReadyMark(name), "@worker_ready", "data")

    return mark


def find_handlers(cls: type) -> Handlers:
    """The marked methods of a class and its bases; a subclass's handler of a name wins.

    Overriding a marked method keeps its mark.

    Raises:
        HandlerDefinitionError: One class marks two methods for one name.
    """
    jobs: dict[str, JobHandler] = {}
    ready: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own: dict[tuple[type, str], str] = {}
        for method, mark in _marks_of(base):
            clash = own.setdefault((type(mark), mark.name), method)
            if clash != method:
                kind = "@job" if isinstance(mark, JobMark) else "@worker_ready"
                raise HandlerDefinitionError(
                    f"{base.__qualname__}.{method}",
                    f"{kind}(name={mark.name!r}) is already on {clash}()",
                )
            if isinstance(mark, JobMark):
                jobs[mark.name] = JobHandler(method, mark.sequential)
            else:
                ready[mark.name] = method
    return Handlers(jobs, ready)


def is_marked(value: object) -> bool:
    """Whether a member of a class is marked as a handler."""
    return bool(getattr(value, _MARKS, ()))


def _marks_of(cls: type) -> Iterator[tuple[str, JobMark | ReadyMark]]:
    for method, value in vars(cls).items():
        for mark in getattr(value, _MARKS, ()):
            yield method, mark


def _mark(function: F, mark: JobMark | ReadyMark, decorator: str, argument: str) -> F:
    where = f"{decorator} on {getattr(function, '__qualname__', function)!s}"
    if not isinstance(mark.name, str):
        raise HandlerDefinitionError(where, f"the name is {mark.name!r}, no text")
    if not mark.name:
        raise HandlerDefinitionError(where, "the name is empty")
    if inspect.isasyncgenfunction(function):
        problem = "it has a yield; send the pieces with send_job_stream_data()"
        raise HandlerDefinitionError(where, problem)
    if not inspect.iscoroutinefunction(function):
        raise HandlerDefinitionError(where, "only an 'async def' method can be a handler")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        problem = f"it is called with self and {argument}, and that fails: {error}"
        raise HandlerDefinitionError(where, problem) from error
    setattr(function, _MARKS, (*getattr(function, _MARKS, ()), mark))
    return function
