"""The bus: who hears what, in which order, and what happens when somebody does not listen."""

from pbus.bus.base import WorkerBus
from pbus.bus.connect import connect
from pbus.bus.local.router import Counters
from pbus.bus.memory import AsyncQueueBus
from pbus.bus.subscriber import BusSubscriber
from pbus.bus.tap import Tap, TapMessage

__all__ = [
    "AsyncQueueBus",
    "BusSubscriber",
    "Counters",
    "Tap",
    "TapMessage",
    "WorkerBus",
    "connect",
]
