"""A message to oneself by way of the broker: it shows that reading and writing are permitted."""

import asyncio
import time
from typing import Final

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client.addresses import new_name
from pbus.messages import BusDataMessage, BusMessage
from pbus.observe import HostRecord

PROBE_S: Final = 5.0
_RECORD_S: Final = 2.0


class BusProbeMessage(BusDataMessage):
    """Of no worker; hidden from `tail`, see `type_names.OWN_TYPES`."""


class _Receiver(BusSubscriber):
    """Waits for the message."""

    def __init__(self, *, is_stored: bool) -> None:
        self.name = new_name()
        self.is_durable = is_stored
        self.arrived = asyncio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        """Note the arrival."""
        if isinstance(message, BusProbeMessage):
            self.arrived.set()


async def probe(sending: WorkerBus, receiving: WorkerBus) -> float:
    """Send a message from one bus to another, and write and remove a record; leaves nothing behind.

    Args:
        sending: Started.
        receiving: Started, of the same channel.

    Returns:
        The seconds until the message was handled.

    Raises:
        TimeoutError: The message did not come within 5 s.
        BusError: The broker refuses to read or write.
    """
    receiver = _Receiver(is_stored=receiving.queues is not None)
    await receiving.subscribe(receiver)
    try:
        async with asyncio.timeout(PROBE_S):
            began = time.monotonic()
            await sending.send(BusProbeMessage(source=new_name(), target=receiver.name))
            await receiver.arrived.wait()
            took_s = time.monotonic() - began
    finally:
        await receiving.unsubscribe(receiver)
        if receiving.queues is not None:
            await receiving.queues.purge(receiver.name, remove=True)
    await _write_record(sending)
    return took_s


async def _write_record(bus: WorkerBus) -> None:
    record = HostRecord(
        project="", host="", pid=0, session="", time=time.time(), bus="", processes=()
    )
    key = new_name()
    await bus.leases.put_record(key, msgspec.json.encode(record), ttl_s=_RECORD_S)
    await bus.leases.drop_record(key)
