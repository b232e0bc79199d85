"""Routes of messages and jobs: to one worker, one of several replicas, all of them, or everyone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from pbus.bus.base import WorkerBus
from pbus.client.targets import FIND_S, find_targets, in_turn, is_away_with_queue
from pbus.client.traffic.message_input import MessageInput
from pbus.errors import MessageRefusedError
from pbus.ids import new_id
from pbus.jobs.params import JobParams
from pbus.leases import Lease
from pbus.messages import BusJobRequestMessage, BusJobRequestUrgentMessage
from pbus.registry import Post

# Sends one message to a target; returns the worker that it went to.
_Send = Callable[[str | None], Awaitable[str | None]]
_SendKeyed = Callable[[str, str, Post], Awaitable[str]]

_EVERYONE: Final[tuple[str | None, ...]] = (None,)


class Route:
    """The workers that messages to one name go to, found once and used as often as needed.

    Args:
        next_targets: Gives the targets of the next message.
        send_one: Sends one message to a target; returns the worker that it went to.
        leases: The workers found.
        is_stored: No worker is there, and what is sent is stored for it.

    Attributes:
        is_stored: See there.
        inactive: The ready workers among them that are inactive, so drop data and refuse jobs.
    """

    def __init__(
        self,
        next_targets: Callable[[], Sequence[str | None]],
        send_one: _Send,
        leases: Sequence[Lease] = (),
        *,
        is_stored: bool = False,
        is_heard: bool = True,
    ) -> None:
        self.is_stored = is_stored
        self.is_heard = is_heard
        self.inactive = sorted(
            lease.name for lease in leases if lease.state == "ready" and not lease.active
        )
        self._next_targets = next_targets
        self._send_one = send_one

    async def send(self, *, count: int = 1, rate: float | None = None) -> list[str | None]:
        """Send the message so many times, to replicas in turn.

        Args:
            count: How many times.
            rate: Times a second; None for as fast as the receivers take it.

        Returns:
            The workers it was sent to, each once, sorted; None among them stands for everyone.

        Raises:
            MessageTooLargeError: The bus does not carry as much.
            BusFullError: A receiver makes no room.
        """
        started, reached = time.monotonic(), dict[str | None, None]()
        for number in range(count):
            if rate is not None:  # late ones follow at once, so that the rate holds
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            for target in self._next_targets():
                reached[await self._send_one(target)] = None
        return sorted(reached, key=lambda name: name or "")


class Router:
    """Finds the workers for messages and jobs of one sender.

    Args:
        bus: Started.
        source: The sender's address.
        new_name: Makes an address.
        send_keyed: Sends a message to the replica that its key belongs to; see KeyOwners.send().
    """

    def __init__(
        self, bus: WorkerBus, source: str, new_name: Callable[[], str], send_keyed: _SendKeyed
    ) -> None:
        self._bus = bus
        self._source = source
        self._new_name = new_name
        self._send_keyed = send_keyed

    async def for_message(
        self, target: str | None, message: MessageInput, *, urgent: bool, within_s: float = FIND_S
    ) -> Route:
        """The route of a message; a system message without a key goes to all replicas, others to one.

        Raises:
            WorkerNotFoundError: No worker of that name was registered in time.
            MessageRefusedError: No receiver knows its type.
        """

        async def post(name: str | None) -> bool:
            return await message.send(self._bus, source=self._source, target=name, urgent=urgent)

        send_one = self._sender(post, message.key)
        is_system = message.category == "system"
        if target is None:
            return await self._for_everyone(message, send_one)
        if not (is_system or urgent) and await is_away_with_queue(self._bus, target):
            return Route(lambda: (target,), send_one, is_stored=True)
        is_for_all = is_system and message.key is None
        leases = await find_targets(
            self._bus, target, within_s=within_s, usable_only=not is_for_all
        )
        await self._check_accepted(leases, message)
        if is_for_all:
            names = [lease.name for lease in leases]
            return Route(lambda: names, send_one)
        warned = leases if message.category == "data" else ()
        return Route(_choice(target, message.key, leases), send_one, warned)

    async def _for_everyone(self, message: MessageInput, send_one: _Send) -> Route:
        leases = await self._bus.leases.leases()
        await self._check_accepted(leases, message)
        is_kept = self._bus.delivery == "at-least-once" and message.category != "system"
        return Route(lambda: _EVERYONE, send_one, is_heard=bool(leases) or is_kept)

    async def for_job(
        self,
        target: str,
        params: JobParams,
        *,
        within_s: float = FIND_S,
        make_id: Callable[[], str] = new_id,
    ) -> Route:
        """The route of a job whose answer is not waited for.

        Raises:
            WorkerNotFoundError: No worker of that name was registered in time.
        """

        async def post(name: str | None) -> bool:
            return await self._bus.send(self._job_request(name, params, make_id()))

        send_one = self._sender(post, params.key)
        if params.priority == "normal" and await is_away_with_queue(self._bus, target):
            return Route(lambda: (target,), send_one, is_stored=True)
        leases = await find_targets(self._bus, target, within_s=within_s)
        return Route(_choice(target, params.key, leases), send_one, leases)

    def _sender(self, post: Callable[[str | None], Awaitable[bool]], key: str | None) -> _Send:
        """Send to a target; where there is a key, to the replica that it belongs to."""

        async def send_one(name: str | None) -> str | None:
            if key is not None and name is not None:
                return await self._send_keyed(name, key, post)
            await post(name)
            return name

        return send_one

    def _job_request(
        self, target: str | None, params: JobParams, job_id: str
    ) -> BusJobRequestMessage:
        is_urgent = params.priority == "high"
        kind: type[Any] = BusJobRequestUrgentMessage if is_urgent else BusJobRequestMessage
        request: BusJobRequestMessage = kind(
            source=self._source,
            target=target,
            job_id=job_id,
            job_name=params.name,
            payload=params.payload,
            deadline=None if params.timeout is None else time.time() + params.timeout,
            key=params.key,
        )
        return request

    async def _check_accepted(self, leases: Sequence[Lease], message: MessageInput) -> None:
        """Check that a message of a type that is not known here has a receiver that knows it."""
        if message.is_known:
            return
        from pbus.client.traffic.acceptance_query import AcceptanceQuery  # noqa: PLC0415 - loads the runner

        query = AcceptanceQuery(self._bus, self._new_name())
        refusals = await query.refusals(leases, message.type, message.fields)
        if refusals:
            raise MessageRefusedError(message.type, refusals)


def _choice(target: str, key: str | None, leases: Sequence[Lease]) -> Callable[[], tuple[str]]:
    """The target of the next message: a replica in turn; with a key the group, whose owner is found."""
    if key is not None:
        return lambda: (target,)
    pick = in_turn(leases)
    return lambda: (pick().name,)
