"""The bus within one process, where nothing is encoded without a tap."""

from pbus.bus.memory import AsyncQueueBus
from pbus.messages import BusDataMessage
from support.listeners import Listener
from support.waiting import run


class Temperature(BusDataMessage):
    """A figure."""

    value: float


def test_looking_changes_nothing():
    """What a follower cannot be shown arrives all the same, and the follower knows of it."""

    async def main():
        async with AsyncQueueBus() as bus:
            listener = Listener("w")
            await bus.subscribe(listener)
            async with bus.tap() as tap:
                await bus.send(Temperature(source="a", target="w", value=float("nan")))
                await listener.heard(1)
                assert 1 == tap.missed

    run(main())
