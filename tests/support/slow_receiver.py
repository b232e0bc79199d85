"""A receiver process that blocks its whole loop once: python slow_receiver.py URL CHANNEL TOTAL SECONDS."""

import asyncio
import sys
import time

from pbus.bus import BusSubscriber, connect
from pbus.messages import BusDataMessage, BusMessage


class Blob(BusDataMessage):
    """A numbered heap of bytes."""

    number: int
    blob: str = ""


class Sleepy(BusSubscriber):
    """Counts, and sleeps through a good part of it."""

    name = "sleepy"

    def __init__(self, total: int, seconds: float) -> None:
        self.numbers: list[int] = []
        self.is_done = asyncio.Event()
        self._total = total
        self._seconds = seconds

    async def on_bus_message(self, message: BusMessage) -> None:
        """Take one message."""
        if not isinstance(message, Blob):
            return
        self.numbers.append(message.number)
        if len(self.numbers) == 100:
            time.sleep(self._seconds)  # noqa: ASYNC251 - the point of it
        if len(self.numbers) == self._total:
            self.is_done.set()


async def main() -> None:
    """Receive everything and say how it went."""
    url, channel, total, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    sleepy = Sleepy(total, seconds)
    bus = connect(url, channel=channel)
    await bus.subscribe(sleepy)
    async with bus:
        print("ready", flush=True)
        await asyncio.wait_for(sleepy.is_done.wait(), 50)
        in_order = sleepy.numbers == list(range(total))
        print(f"got {len(sleepy.numbers)} lost {bus.counters.lost} in_order {in_order}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
