"""Messages far beyond the usual, with max_message_bytes raised."""

import os

import pytest

from pbus.bus import connect
from pbus.messages import BusDataMessage
from support.listeners import Listener
from support.waiting import PATIENCE_S, run

pytestmark = pytest.mark.pgmq

MEBI = 1024 * 1024
SIZES = tuple(int(size) for size in os.environ.get("PBUS_LARGE_MIB", "8,16").split(","))


class Load(BusDataMessage):
    """Carries text that compresses badly."""

    number: int
    text: str = ""


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
def test_large_messages_arrive(shared_database, channel, delivery):
    """What is much larger than any credit or batch arrives, and what comes before and after, too."""
    sizes = [0, *SIZES, 0]
    texts = [os.urandom(size * MEBI // 2).hex() for size in sizes]

    async def main():
        listener = Listener("w")
        options = {"channel": channel, "delivery": delivery, "max_message_bytes": 128 * MEBI}
        here, there = (
            connect(shared_database, send_timeout=2 * PATIENCE_S, **options) for _ in range(2)
        )
        async with here, there:
            await there.subscribe(listener)
            for number, text in enumerate(texts):
                await here.send(Load(source="a", target="w", number=number, text=text))
            heard = await listener.heard(len(texts), within=2 * PATIENCE_S)
        assert [*range(len(texts))] == [one.number for one in heard]
        assert texts == [one.text for one in heard]

    run(main(), timeout=55)
