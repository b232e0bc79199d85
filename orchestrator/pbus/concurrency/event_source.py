"""Events of an object and their handlers: `@worker.event_handler("on_activated")`."""

import asyncio
import difflib
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar, TypeVar

import msgspec

from pbus.concurrency.user_code import as_handler_error
from pbus.errors import UnknownEventError
from pbus.trace_context import Cause, give_cause

logger = logging.getLogger(__name__)

MAX_WAITING_CALLS = 10_000  # per event; further ones are dropped and logged
MAX_WAITING_BYTES = 64 * 1024 * 1024  # of the values of waiting calls
_VALUE_BYTES = 64  # of a value that has no length
_DEPTH = 6  # of nested values that are counted

Handler = Callable[..., Awaitable[None] | None]
H = TypeVar("H", bound=Handler)


class EventSource:
    """Calls handlers of named events with the object, then the event's values.

    Handlers of one event run one call after another in the order fired, in a task that this object
    owns; different events do not wait for each other. Errors of handlers are logged.

    Attributes:
        EVENTS: The events a class adds to those of its bases.
    """

    EVENTS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self._event_handlers: dict[str, list[Handler]] = {}
        self._event_calls: dict[str, _Calls] = {}
        self._event_tasks: dict[str, asyncio.Task[None]] = {}

    def event_handler(self, event: str) -> Callable[[H], H]:
        """Decorate a function, sync or async, to have it called at this event.

        Raises:
            UnknownEventError: There is no such event; the nearest name is given.
        """
        self._check_event(event)

        def add(handler: H) -> H:
            self.add_event_handler(event, handler)
            return handler

        return add

    def add_event_handler(self, event: str, handler: Handler) -> None:
        """Call the handler at this event, behind those added before; adding it twice does nothing.

        Raises:
            UnknownEventError: There is no such event; the nearest name is given.
        """
        self._check_event(event)
        handlers = self._event_handlers.setdefault(event, [])
        if handler not in handlers:
            handlers.append(handler)

    def remove_event_handler(self, event: str, handler: Handler) -> None:
        """Remove a handler; does nothing when it was not added.

        Raises:
            UnknownEventError: There is no such event; the nearest name is given.
        """
        self._check_event(event)
        handlers = self._event_handlers.get(event, [])
        if handler in handlers:
            handlers.remove(handler)

    def _is_listened_to(self, event: str) -> bool:
        """Whether the event has handlers."""
        return bool(self._event_handlers.get(event))

    def _fire_event(self, event: str, *values: Any) -> None:
        """Call the handlers of this event soon; costs nothing when there are none."""
        if not self._is_listened_to(event):
            return
        calls = self._event_calls.setdefault(event, _Calls())
        if calls.is_full:
            logger.warning(
                "%r: handlers of %s are %d calls behind; one lost", self, event, len(calls)
            )
            return
        calls.add(values)
        running = self._event_tasks.get(event)
        if running is None or running.done():
            task = asyncio.create_task(self._call_handlers(event, calls), name=f"pbus {event}")
            self._event_tasks[event] = task

    async def _run_event_handlers(self, event: str, *values: Any) -> Any:
        """Call the handlers of an event, as part of this task; raises their errors.

        Returns:
            The first result that is not None.
        """
        first = None
        for handler in list(self._event_handlers.get(event, ())):
            result: Any = handler(self, *values)
            if inspect.isawaitable(result):
                result = await result
            first = result if first is None else first
        return first

    async def _settle_events(self, timeout: float) -> bool:  # noqa: ASYNC109 - it returns then
        """Wait, at most so many seconds, until fired events are handled; returns whether they are."""
        tasks = self._running_handlers()
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=timeout)
        return not late

    async def _close_events(self, timeout: float) -> None:  # noqa: ASYNC109 - then it cancels
        """Wait until fired events are handled; cancel handlers that take longer (seconds)."""
        try:
            if await self._settle_events(timeout):
                return
        finally:
            late = self._running_handlers()
            for task in late:
                task.cancel()
        if late:
            logger.warning("%r: handlers of %d events took too long", self, len(late))
            await asyncio.wait(late, timeout=1.0)

    def _running_handlers(self) -> list[asyncio.Task[None]]:
        current = asyncio.current_task()
        return [task for task in self._event_tasks.values() if task is not current]

    async def _call_handlers(self, event: str, calls: "_Calls") -> None:
        try:
            while calls:
                values = calls.take()
                give_cause(_cause_of(values))
                for handler in list(self._event_handlers.get(event, ())):
                    await self._call_handler(event, handler, values)
        finally:
            calls.clear()
            self._event_tasks.pop(event, None)

    async def _call_handler(self, event: str, handler: Handler, values: tuple[Any, ...]) -> None:
        try:
            result = handler(self, *values)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.warning("%r: a handler of %s was cancelled from within", self, event)
        except BaseException as raised:
            error = as_handler_error(raised, f"a handler of {event}", asyncio.current_task())
            if error is None:
                raise
            logger.error("%r: a handler of %s raised", self, event, exc_info=error)  # noqa: TRY400 - another error

    def _check_event(self, event: str) -> None:
        known = {name for cls in type(self).__mro__ for name in cls.__dict__.get("EVENTS", ())}
        if event not in known:
            nearest = difflib.get_close_matches(event, known, n=1)
            raise UnknownEventError(type(self).__name__, event, sorted(known), nearest)


class _Calls:
    """Waiting calls of one event, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, tuple[Any, ...]]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING_CALLS or self._bytes >= MAX_WAITING_BYTES

    def add(self, values: tuple[Any, ...]) -> None:
        # Handlers that keep up have one call waiting: its size is not needed.
        size = _size_of(values, _DEPTH) if self._waiting else 0
        self._bytes += size
        self._waiting.append((size, values))

    def take(self) -> tuple[Any, ...]:
        size, values = self._waiting.popleft()
        self._bytes -= size
        return values

    def clear(self) -> None:
        self._waiting.clear()
        self._bytes = 0


def _cause_of(values: tuple[Any, ...]) -> Cause | None:
    """The message that handlers are called with: what they send belongs to its trace."""
    return values[0] if values and hasattr(values[0], "traceparent") else None


def _size_of(value: Any, depth: int) -> int:
    """Estimate the bytes of a value."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if depth == 0:
        return _VALUE_BYTES
    if isinstance(value, dict):
        parts: Iterable[Any] = (*value, *value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    elif isinstance(value, msgspec.Struct):
        parts = (getattr(value, name) for name in value.__struct_fields__)
    else:
        return _VALUE_BYTES
    return _VALUE_BYTES + sum(_size_of(part, depth - 1) for part in parts)
