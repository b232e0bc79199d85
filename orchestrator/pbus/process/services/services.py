"""Services of a running project: its guard, and its embedded broker if it has one."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from pbus.concurrency.background import TaskFunction, running
from pbus.concurrency.backoff import delay_after
from pbus.errors import ProcessError
from pbus.process.project.project import Project
from pbus.process.services.embedded_server import EmbeddedServer
from pbus.process.services.guard_client import GuardClient
from pbus.process.services.postgres import EmbeddedPostgres
from pbus.process.services.valkey import EmbeddedValkey
from pbus.settings import BusSettings

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 10.0
_POLL_S = 0.5
_STEADY_S = 10.0  # a service that ran for so long is restarted without delay

logger = logging.getLogger(__name__)


class Services:
    """Starts guard and broker, and restarts them when they end.

    Args:
        project: Its project.
        bus: Without a URL the broker is embedded.
        on_broker: Called when the embedded broker is gone (False) and when it is back (True).

    Raises:
        ProcessError: The bus is in memory and cannot connect processes.
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
        """Start the guard, then the broker; returns the broker's URL with its password.

        Raises:
            ProcessError: One of them does not start.
        """
        await self.guard.start(self._project)
        if self._broker is not None:
            self._url = await self._broker.start()
        return self._url or ""

    def tasks(self) -> dict[str, TaskFunction]:
        """Return the background tasks by name, each to be run until cancelled."""
        broker = self._broker
        tasks: dict[str, TaskFunction] = {"guard": self._keep_guard}
        return tasks if broker is None else {**tasks, "broker": lambda: self._keep_broker(broker)}

    async def close(self) -> None:
        """Stop the broker, then let the guard clean up."""
        if self._broker is not None:
            await self._broker.stop()
        await self.guard.stop()

    async def _keep_guard(self) -> None:
        backoff = _RestartBackoff()
        while True:
            code = await self.guard.wait_died()
            logger.warning("the guard ended (%d) and is started again", code)
            await backoff.restart("guard", lambda: self.guard.start(self._project))

    async def _keep_broker(self, broker: EmbeddedServer) -> None:
        backoff = _RestartBackoff()
        while True:
            loss = await self._wait_lost(broker)
            logger.warning("the embedded broker %s and is started again", loss)
            self._on_broker(False)  # noqa: FBT003
            await backoff.restart("embedded broker", broker.start)
            self._on_broker(True)  # noqa: FBT003

    async def _wait_lost(self, broker: EmbeddedServer) -> str:
        """Wait until the broker ended or its socket is gone; returns the loss as text."""
        has_warned = False
        async with running(broker.wait()) as ending:
            while not (await asyncio.wait([ending], timeout=_POLL_S))[0]:
                if broker.is_listening:
                    has_warned = False
                    continue
                try:  # until then it goes on for clients that are connected
                    self._project.make_runtime_dir()
                except ProcessError as error:
                    if not has_warned:
                        logger.warning("nothing new can reach the embedded broker: %s", error)
                    has_warned = True
                else:
                    return "lost its socket (a logout removes it)"
            return f"ended ({ending.result()})"


def _broker_of(project: Project, bus: BusSettings, guard: GuardClient) -> EmbeddedServer | None:
    if bus.url is not None:
        return None
    if bus.backend == "pgmq":
        return EmbeddedPostgres(project, guard)
    return EmbeddedValkey(project, guard, keeps_data=bus.is_stored)


class _RestartBackoff:
    """Restarts a service until that succeeds, with growing delays."""

    def __init__(self) -> None:
        self._failures = 0
        self._started_at = time.monotonic()

    async def restart(self, name: str, start: Callable[[], Awaitable[object]]) -> None:
        """Start the service, without delay if it had run for some time."""
        if time.monotonic() - self._started_at >= _STEADY_S:
            self._failures = 0
        while True:
            await asyncio.sleep(delay_after(self._failures, _FIRST_DELAY_S, _LONGEST_DELAY_S))
            self._failures += 1
            try:
                await start()
            except (ProcessError, OSError) as error:
                logger.warning("the %s cannot be started again: %s", name, error)
            else:
                self._started_at = time.monotonic()
                return
