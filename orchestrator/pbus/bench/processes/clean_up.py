"""Removing a benchmark's queues from a broker that stores messages."""

from collections.abc import Iterable

from pbus.bus.connect import connect


async def remove_queues(url: str, channels: Iterable[str]) -> None:
    """Remove the queues of channels that are not used any more.

    Raises:
        BusUnavailableError: The broker cannot be reached any more.
    """
    for channel in channels:
        bus = connect(url, channel=channel, delivery="at-least-once")
        if bus.queues is None:
            return
        async with bus:
            for queue in await bus.queues.stats():
                await bus.queues.purge(queue.name, remove=True)
