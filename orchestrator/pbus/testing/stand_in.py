"""StandIn: takes the place of another worker in a test."""

import inspect
from collections.abc import Mapping
from typing import Any

from pbus.handlers import PENDING
from pbus.messages import (
    BusJobRequestMessage,
    BusMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
)
from pbus.testing.message_recorder import M, MessageRecorder, Where
from pbus.workers.base_worker import BaseWorker


class StandIn(BaseWorker):
    """A worker that records its messages and answers jobs as configured.

    Args:
        name: The name of the worker whose place it takes.
        answers: By job name: the response (a dict, or any other value as "result"), an exception
            to raise, or a function of the BusJobRequestMessage, sync or async, that returns either.
            A job without an answer stays open: answer it with send_job_response(), or let it time
            out.
        active: Whether it starts active.
        timeout: Seconds that got() and asked() wait.

    Attributes:
        answers: May be changed while the test runs.
        received: All messages so far, job requests included.
    """

    def __init__(
        self,
        name: str,
        answers: Mapping[str, Any] | None = None,
        *,
        active: bool = True,
        timeout: float = 5.0,
    ) -> None:
        super().__init__(name, active=active)
        self.answers: dict[str, Any] = dict(answers or {})
        self._timeout = timeout
        self._recorder = MessageRecorder(f"{name!r} got")

    @property
    def received(self) -> list[BusMessage]:
        """The messages received so far."""
        return list(self._recorder)

    @property
    def job_names(self) -> tuple[str, ...]:
        """The names of jobs with an answer, sorted."""
        return tuple(sorted(self.answers))

    async def got(self, kind: type[M] = BusMessage, *, where: Where[M] | None = None) -> M:  # type: ignore[assignment]
        """The next message of a kind that it received and no call returned before.

        Raises:
            NotSeenError: None came in time.
        """
        return await self._recorder.next(kind, where, self._timeout)

    async def asked(self, job_name: str) -> BusJobRequestMessage:
        """The next request for this job.

        Raises:
            NotSeenError: None came in time.
        """
        return await self.got(
            BusJobRequestMessage, where=lambda request: request.job_name == job_name
        )

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Accept all messages but pbus' own announcements."""
        return not isinstance(message, BusWorkerRegistryMessage | BusWorkerReadyMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Record a message."""
        self._recorder.add(message)

    async def on_job_request(self, message: BusJobRequestMessage) -> Any:
        """Answer as configured."""
        if message.job_name not in self.answers:
            return PENDING
        answer = self.answers[message.job_name]
        if callable(answer) and not isinstance(answer, type):
            answer = answer(message)
            if inspect.isawaitable(answer):
                answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return {} if answer is None else answer
