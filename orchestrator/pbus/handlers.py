"""`@job` and `@worker_ready`: marks of a worker's methods, and the search for them in a class."""

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
"""The return value of a job handler that answers later, by send_job_response()."""


class JobMark(msgspec.Struct, frozen=True):
    """Marks a method as the handler of the jobs of a name, one at a time when sequential."""

    name: str
    sequential: bool = False


class ReadyMark(msgspec.Struct, frozen=True):
    """Marks a method that is called when the worker of a name is ready."""

    name: str


class JobHandler(msgspec.Struct, frozen=True):
    """The handler of the jobs of one name in a worker class."""

    method: str
    sequential: bool


class Handlers(msgspec.Struct, frozen=True):
    """The marked methods of a worker class: job handlers and ready handlers by name."""

    jobs: dict[str, JobHandler]
    ready: dict[str, str]


def job(*, name: str, sequential: bool = False) -> Callable[[F], F]:
    """Mark an async method as the handler of the jobs of a name.

    The method gets the BusJobRequestMessage. Its return value is the answer: a dict as it is, any
    other value under "result", None as {}. An exception is answered as an error. The method may also
    answer by send_job_response(), or return PENDING and answer later.

    Args:
        name: The name in requests.
        sequential: Whether these jobs run one after another, in order of arrival.

    Raises:
        HandlerDefinitionError: The method has the wrong form.
    """

    def mark(function: F) -> F:
        return _mark(function, JobMark(name, sequential), "@job", "request")

    return mark


def worker_ready(*, name: str) -> Callable[[F], F]:
    """Mark an async method that is called, with WorkerReadyData, each time a worker is ready.

    It is called at once for a worker that is ready already, and again after a restart.

    Args:
        name: Of the worker; for a group of replicas, the first ready one counts.

    Raises:
        HandlerDefinitionError: The method has the wrong form.
    """

    def mark(function: F) -> F:
        return _mark(function, ReadyMark(name), "@worker_ready", "data")

    return mark


def find_handlers(cls: type) -> Handlers:
    """Find the marked methods of a class and its bases; a subclass's handler of a name wins.

    A method that overrides a marked one keeps its mark.

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
