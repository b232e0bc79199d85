"""The parts of a synchronous client: a job that is read, a tail, control, dead letters."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from pbus.bus.queues.store import DeadLetter
from pbus.client.control.control_requester import ControlResult
from pbus.client.control.worker_control import CUT_OFF_S, DEFAULT_TIMEOUT_S
from pbus.client.project_client import Client
from pbus.client.traffic.message_tail import MessageTail
from pbus.client.traffic.state_tail import StateTail
from pbus.client.traffic.tails.message_pairs import PairTail
from pbus.client.traffic.tails.timeline import Timeline
from pbus.jobs import JobContext, JobEvent, JobResponse
from pbus.messages import ControlAction

_ROLL_S = 3600.0

T = TypeVar("T")
Item = TypeVar("Item")


class Call(Protocol):
    """Awaits something in the loop of a synchronous client, within its deadline."""

    def __call__(
        self, name: str, make: Callable[[], Awaitable[T]], timeout_s: float | None = None, /
    ) -> T:
        """Wait for the result of a method, so many seconds; None: as many as calls get."""
        ...


class SyncJob:
    """A job that is read while it is worked on, as JobContext.

    Args:
        call: Of the client.
        context: The job.
        timeout_s: Its timeout.
    """

    def __init__(self, call: Call, context: JobContext, timeout_s: float) -> None:
        self._call = call
        self._context = context
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        self._call("open_job", self._context.__aenter__, self._timeout_s)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call(
            "open_job", lambda: self._context.__aexit__(kind, error, traceback), self._timeout_s
        )

    def __iter__(self) -> Iterator[JobEvent]:
        """Its updates and pieces, as they come; ends when it is over."""
        while (event := self._call("event", self._next_event, self._timeout_s)) is not None:
            yield event

    async def _next_event(self) -> JobEvent | None:
        return await anext(self._context, None)

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._context.job_id

    @property
    def worker(self) -> str:
        """The worker at work on it."""
        return self._context.worker

    @property
    def response(self) -> JobResponse:
        """The worker's response.

        Raises:
            JobNotDoneError: It has not answered yet.
        """
        return self._context.response


class SyncTail(Generic[Item]):
    """Messages or state changes as they pass, for so many seconds; ends early with its block.

    Args:
        call: Of the client.
        tail: What is followed.
        timeout_s: Seconds from the first look.
    """

    def __init__(
        self, call: Call, tail: MessageTail | PairTail | StateTail | Timeline, timeout_s: float
    ) -> None:
        self._call = call
        self._tail: Any = tail
        self._timeout_s = timeout_s
        self._ends_at: float | None = None

    def __enter__(self) -> Self:
        if self._ends_at is None:
            self._call("tail", self._tail.__aenter__)
            self._ends_at = time.monotonic() + self._timeout_s
        return self

    def __exit__(self, *exc: object) -> None:
        self._call("tail", self._tail.close)

    def __iter__(self) -> Iterator[Item]:
        """Messages or changes as they pass, until time is up."""
        with self:
            while (item := self._call("tail", self._next, self._left_s())) is not None:
                yield item

    def _left_s(self) -> float:
        return max(0.0, (self._ends_at or 0.0) - time.monotonic())

    async def _next(self) -> Item | None:
        try:
            async with asyncio.timeout(self._left_s()):
                item: Item | None = await anext(self._tail, None)
                return item
        except TimeoutError:
            return None


class SyncControl:
    """Starts, stops and restarts workers; arguments and errors as Control."""

    def __init__(self, call: Call, client: Client) -> None:
        self._call = call
        self._client = client

    def restart(
        self, *workers: str, timeout: float | None = None, rolling: bool = False
    ) -> list[ControlResult]:
        """Stop workers and start them again; returns when they are ready."""
        return self._run("roll" if rolling else "restart", workers, timeout)

    def stop(self, *workers: str, timeout: float | None = None) -> list[ControlResult]:
        """Stop workers; they stay stopped until they are started."""
        return self._run("stop", workers, timeout)

    def start(self, *workers: str, timeout: float | None = None) -> list[ControlResult]:
        """Start workers that do not run; returns when they are ready."""
        return self._run("start", workers, timeout)

    def scale(
        self, counts: Mapping[str, int], timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[ControlResult]:
        """Run other numbers of replicas until the next `pbus up`; returns when that is so."""
        return self._call(
            "scale",
            lambda: self._client.control.scale(counts, timeout=timeout),
            timeout + CUT_OFF_S,
        )

    def _run(
        self, action: ControlAction, workers: Sequence[str], timeout_s: float | None
    ) -> list[ControlResult]:
        limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        limit_s = _ROLL_S if action == "roll" else limit_s  # the client has a deadline for each
        return self._call(
            action,
            lambda: self._client.control.run(action, workers, timeout_s),
            limit_s + CUT_OFF_S,
        )


class SyncDeadLetters:
    """The messages that were tried too often; arguments and errors as DeadLetters."""

    def __init__(self, call: Call, client: Client) -> None:
        self._call = call
        self._client = client

    def list(self, worker: str | None = None) -> "Sequence[DeadLetter]":
        """The dead letters of a worker or of all, oldest first."""
        return self._call("list", lambda: self._client.dead_letters.list(worker))

    def get(self, key: str) -> DeadLetter:
        """One dead letter."""
        return self._call("get", lambda: self._client.dead_letters.get(key))

    def requeue(self, *keys: str, worker: str | None = None, every: bool = False) -> int:
        """Put dead letters back into their queues; returns how many."""
        dead = self._client.dead_letters
        return self._call("requeue", lambda: dead.requeue(*keys, worker=worker, every=every))

    def drop(self, *keys: str, worker: str | None = None, every: bool = False) -> int:
        """Remove dead letters for good; returns how many."""
        dead = self._client.dead_letters
        return self._call("drop", lambda: dead.drop(*keys, worker=worker, every=every))
