"""The bus: routing, order, flow control, delivery at most or at least once."""

from pbus.bus.base import WorkerBus
from pbus.bus.connect import connect
from pbus.bus.local.counters import Counters
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
