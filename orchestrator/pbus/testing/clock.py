"""FakeClock: an event loop's time that jumps to the next deadline."""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class FakeClock:
    """Seconds that pass when a test says so.

    Call it for the time, wherever the library takes a clock. ``clock.run(main())`` is asyncio.run()
    on this clock: when all tasks wait, it jumps to the next deadline, so an hour's sleep takes no
    time and the order of events is always the same. While threads of the loop's executor work, or
    connections are open, it follows real time.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def __call__(self) -> float:
        """The time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on a loop with this clock."""
        with asyncio.Runner(loop_factory=lambda: _FakeLoop(self)) as runner:
            return runner.run(main)


class _FakeLoop(asyncio.SelectorEventLoop):
    """Takes the time from the clock, and moves it instead of waiting."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._working = 0
        super().__init__(_JumpingSelector(clock, lambda: self._working > 0))

    def time(self) -> float:
        return self._clock()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._working += 1
        future.add_done_callback(self._note_done)
        return future

    def _note_done(self, _: asyncio.Future[Any]) -> None:
        self._working -= 1


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the clock instead of waiting, unless there are events from outside the loop."""

    def __init__(self, clock: FakeClock, is_working: Callable[[], bool]) -> None:
        super().__init__()
        self._clock = clock
        self._is_working = is_working

    def select(self, timeout: float | None = None) -> list[Any]:
        events: list[Any] = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is not None and not self._is_working() and self._is_alone:
            self._clock.advance(timeout)
            return []
        began = time.monotonic()
        events = super().select(timeout)
        self._clock.advance(time.monotonic() - began)
        return events

    @property
    def _is_alone(self) -> bool:
        """Whether the loop's own pipe is the only file."""
        return len(self.get_map()) <= 1
