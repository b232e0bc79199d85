"""Asking, before a message is sent, whether its receivers know its type."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.errors import MessageTooLargeError
from pbus.leases import Lease
from pbus.messages import BusMessage
from pbus.runner.type_checks import BusAcceptanceRequestMessage, BusAcceptanceResponseMessage

_ASK_S: Final = 1.0  # those that do not answer (a blocked loop, an older version) may accept it


class AcceptanceQuery(BusSubscriber):
    """Asks runners, and gathers their answers.

    Args:
        bus: Started.
        name: Its address.
    """

    is_durable = False

    def __init__(self, bus: WorkerBus, name: str) -> None:
        self.name = name
        self._bus = bus
        self._answers: dict[str, str | None] = {}
        self._expected: set[str] = set()
        self._complete = asyncio.Event()

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Only answers."""
        return isinstance(message, BusAcceptanceResponseMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Keep an answer."""
        if isinstance(message, BusAcceptanceResponseMessage):
            self._answers[message.runner] = message.problem
            self._expected.discard(message.runner)
            if not self._expected:
                self._complete.set()

    async def refusals(
        self, leases: Iterable[Lease], kind: str, fields: Mapping[str, Any]
    ) -> list[str]:
        """The workers that would refuse a message, each with its reason.

        Returns:
            Nothing where one accepts it, or may do so.
        """
        hosts = {lease.name: lease.runner for lease in leases}
        self._expected = set(hosts.values())
        if not hosts:
            return []
        await self._bus.subscribe(self)
        with contextlib.suppress(TimeoutError, MessageTooLargeError):  # then it is to say so itself
            async with asyncio.timeout(_ASK_S):
                for runner in sorted(self._expected):
                    names = tuple(name for name, host in hosts.items() if host == runner)
                    await self._bus.send(
                        BusAcceptanceRequestMessage(
                            source=self.name,
                            target=runner,
                            kind=kind,
                            fields=dict(fields),
                            workers=names,
                        )
                    )
                await self._complete.wait()
        await self._bus.unsubscribe(self)
        problems = {name: self._answers.get(runner) for name, runner in sorted(hosts.items())}
        if None in problems.values():
            return []
        return [f"{name}: {problem}" for name, problem in problems.items()]
