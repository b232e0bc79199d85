"""What a measurement leaves in a broker that keeps messages: nothing."""

from collections.abc import Iterable

from pbus.bus.connect import connect


async def forget(url: str, channels: Iterable[str]) -> None:
    """Remove the mailboxes of channels that nobody will use again.

    Raises:
        BusUnavailableError: The broker cannot be reached any more.
    """
    for channel in channels:
        bus = connect(url, channel=channel, delivery="at-least-once")
        if bus.queues is None:
            return
        async with bus:
            for report in await bus.queues.stats():
                await bus.queues.purge(report.name, remove=True)
