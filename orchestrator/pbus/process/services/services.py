"""What a running project stands on: its guard, and its own broker where it has none elsewhere."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from pbus.concurrency.background import TaskFunction
from pbus.errors import ProcessError
from pbus.process.project.project import Project
from pbus.process.services.guard_client import GuardClient
from pbus.process.services.postgres import EmbeddedPostgres
from pbus.process.services.valkey import EmbeddedValkey
from pbus.settings import BusSettings

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 10.0
_LOOK_S = 0.5
_STEADY_S = 10.0  # what lived so long is started again at once

logger = logging.getLogger(__name__)


class EmbeddedBroker(Protocol):
    """A server that belongs to one project."""

    @property
    def is_listening(self) -> bool:
        """Whether its socket is where clients look for it."""
        ...

    async def start(self) -> str:
        """Start it, again if it had ended; returns its URL. May raise ProcessError."""
        ...

    async def wait(self) -> int:
        """Wait until it ended; returns its exit code."""
        ...

    async def stop(self) -> None:
        """End it, if it runs."""
        ...


class Services:
    """Starts guard and broker, and starts them again whenever they die.

    Args:
        project: Whose.
        bus: Says whether there is a broker to start.
        on_broker: Called when the embedded broker is gone (False) and when it is back (True).

    Raises:
        ProcessError: The bus is in memory, so processes could not hear each other.
    """

    def __init__(
        self, project: Project, bus: BusSettings, on_broker: Callable[[bool], None]
    ) -> None:
        if bus.is_in_process:
            raise ProcessError(
                "`backend: memory` reaches no other process, so no worker can be one",
                hint="run it with `pbus up` in the foreground, or choose a broker",
            )
        self.guard = GuardClient()
        self._project = project
        self._on_broker = on_broker
        self._url = bus.url
        self._broker = _broker_of(project, bus, self.guard)

    async def open(self) -> str:
        """Start both, the guard first, and return the broker's URL with its password.

        Raises:
            ProcessError: One of them does not start.
        """
        await self.guard.start(self._project)
        if self._broker is not None:
            self._url = await self._broker.start()
        return self._url or ""

    def chores(self) -> dict[str, TaskFunction]:
        """To watch over both, each until cancelled; by what they are."""
        broker = self._broker
        chores: dict[str, TaskFunction] = {"guard": self._keep_guard}
        return chores if broker is None else {**chores, "broker": lambda: self._keep_broker(broker)}

    async def close(self) -> None:
        """Stop the broker, then let the guard clean up behind us."""
        if self._broker is not None:
            await self._broker.stop()
        await self.guard.stop()

    async def _keep_guard(self) -> None:
        pace = _RestartBackoff()
        while True:
            code = await self.guard.wait_died()
            logger.warning("the guard ended (%d) and is started again", code)
            await pace.insist("guard", lambda: self.guard.start(self._project))

    async def _keep_broker(self, broker: EmbeddedBroker) -> None:
        pace = _RestartBackoff()
        while True:
            how = await self._loss_of(broker)
            logger.warning("the embedded broker %s and is started again", how)
            self._on_broker(False)  # noqa: FBT003
            await pace.insist("embedded broker", broker.start)
            self._on_broker(True)  # noqa: FBT003

    async def _loss_of(self, broker: EmbeddedBroker) -> str:
        """Wait until the broker ended or nobody can find it any more; which of both, in words."""
        ending = asyncio.ensure_future(broker.wait())
        has_complained = False
        try:
            while not (await asyncio.wait([ending], timeout=_LOOK_S))[0]:
                if broker.is_listening:
                    has_complained = False
                    continue
                try:  # until then it goes on for those that are connected
                    self._project.make_runtime_dir()
                except ProcessError as error:
                    if not has_complained:
                        logger.warning("nothing new can reach the embedded broker: %s", error)
                    has_complained = True
                else:
                    return "lost its socket (a logout removes it)"
            return f"ended ({ending.result()})"
        finally:
            ending.cancel()


def _broker_of(project: Project, bus: BusSettings, guard: GuardClient) -> EmbeddedBroker | None:
    if bus.url is not None:
        return None
    if bus.backend == "pgmq":
        return EmbeddedPostgres(project, guard)
    return EmbeddedValkey(project, guard, keeps_data=bus.is_stored)


class _RestartBackoff:
    """Starts something again, however often that takes: everything else goes on meanwhile."""

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._started = time.monotonic()

    async def insist(self, what: str, start: Callable[[], Awaitable[object]]) -> None:
        """It has ended: start it, at once if it had lived for some time."""
        if time.monotonic() - self._started >= _STEADY_S:
            self._delay_s = 0.0
        while True:
            await asyncio.sleep(self._delay_s)
            self._delay_s = min(_LONGEST_DELAY_S, max(_FIRST_DELAY_S, self._delay_s * 2))
            try:
                await start()
            except (ProcessError, OSError) as error:
                logger.warning("the %s cannot be started again: %s", what, error)
            else:
                self._started = time.monotonic()
                return
