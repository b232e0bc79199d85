"""Many senders in one process, as a bus needs them that confirms what it stored."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from pbus.bus.base import WorkerBus
from pbus.messages import BusMessage

SENDERS = 1_000


async def send_all(
    bus: WorkerBus, send: Callable[[BusMessage], Awaitable[None]], messages: Iterator[BusMessage]
) -> None:
    """Send messages in order: one after another, or by many senders where each waits for the broker."""

    async def work() -> None:
        for message in messages:
            await send(message)

    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS if bus.delivery == "at-least-once" else 1):
            senders.create_task(work())
