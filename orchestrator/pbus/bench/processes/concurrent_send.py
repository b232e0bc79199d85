"""Many senders in one process, for a bus that confirms each message once it is stored."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from pbus.bus.base import WorkerBus
from pbus.messages import BusMessage

SENDERS = 1_000


async def send_all(
    bus: WorkerBus, send: Callable[[BusMessage], Awaitable[object]], messages: Iterator[BusMessage]
) -> None:
    """Send messages in order, by many senders where each send waits for the broker."""

    async def send_some() -> None:
        for message in messages:
            await send(message)

    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS if bus.delivery == "at-least-once" else 1):
            senders.create_task(send_some())
