"""PbusBus: Pipecat's WorkerBus on pbus' transport."""

import os
from typing import Any, Self, Unpack

from pbus.bus.brokered import BrokeredBus
from pbus.bus.connect import connect, make_bus
from pbus.bus.otel import trace_if_configured
from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.deliveries import Deliveries
from pbus.compat.pipecat.link import PipecatLink
from pbus.errors import BusClosedError, BusError
from pbus.settings import BusOptions, BusSettings

_START_S = 30.0


class PbusBus(theirs.WorkerBus):
    """The bus of a Pipecat runner, over Redis, Valkey or Postgres: ``WorkerRunner(bus=PbusBus.from_env())``.

    Its workers are registered in pbus, and know the workers of all other processes of the channel,
    of Pipecat or pbus. What `send` cannot carry is an error there.

    Args:
        url: As of `pbus.connect`.
        session: `end()` and `cancel()` of a worker end all processes of one session; of the whole
            channel when not given.
        entry: The name under which a supervisor knows this process.
        incarnation: Names this run of this process; made up when not given.
        **options: As of `pbus.connect`.

    Raises:
        BusError: The bus is none between processes; also as of `pbus.connect`.
    """

    is_observer = False  # as the front of its link

    def __init__(
        self,
        url: str,
        *,
        session: str | None = None,
        entry: str | None = None,
        incarnation: str | None = None,
        **options: Unpack[BusOptions],
    ) -> None:
        super().__init__()
        self._adopt(connect(url, incarnation=incarnation, **options), session, entry)

    @classmethod
    def from_env(cls) -> Self:
        """The bus of the project whose `pbus up` started this program.

        Raises:
            BusError: None did.
        """
        if not os.environ.get("PBUS_URL"):
            raise BusError(
                "no `pbus up` started this program: PBUS_URL is not set",
                hint="say where the bus is: PbusBus(url, channel=…)",
            )
        bus = cls.__new__(cls)
        theirs.WorkerBus.__init__(bus)
        made = make_bus(BusSettings.from_env(os.environ))
        trace_if_configured(made, os.environ)
        entry = os.environ.get("PBUS_WORKER") or None
        bus._adopt(made, os.environ.get("PBUS_SESSION") or None, entry)  # noqa: SLF001
        return bus

    def _adopt(self, bus: Any, session: str | None, entry: str | None) -> None:
        if not isinstance(bus, BrokeredBus):
            raise BusError("PbusBus is for several processes: give the URL of a broker")
        self._ours = bus
        self._deliveries = Deliveries()
        self._session = session
        self._entry = entry
        self._runner: theirs.WorkerRunner | None = None
        self._link: PipecatLink | None = None

    async def subscribe(self, subscriber: theirs.BusSubscriber) -> None:
        """Deliver messages to a subscriber; the runner among them hosts the workers."""
        if isinstance(subscriber, theirs.WorkerRunner):
            self._runner = subscriber
        self._deliveries.add(subscriber)

    async def unsubscribe(self, subscriber: theirs.BusSubscriber) -> None:
        """Deliver to a subscriber no more."""
        await self._deliveries.remove(subscriber)

    def on_message_received(self, message: theirs.BusMessage) -> None:
        """Deliver a message to the subscribers here, those left out on which it has no effect."""
        self._deliveries.put(message)

    async def start(self) -> None:
        """Join the channel, and deliver.

        Raises:
            BusUnavailableError: The broker does not answer.
            BusError: No runner has subscribed.
        """
        if self._runner is None:
            raise BusError("a PbusBus is started by its runner: WorkerRunner(bus=…)")
        if self._link is None:
            self._link = PipecatLink(
                self._ours,
                self._runner,
                self,
                session=self._session,
                entry=self._entry,
            )
            await self._link.open(_START_S)
        await super().start()
        self._deliveries.start()

    async def stop(self) -> None:
        """Leave the channel, and deliver nothing more."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        await self._deliveries.stop()
        await super().stop()

    def deliver(self, message: theirs.BusMessage) -> None:
        """Hand a message of another process to the subscribers here."""
        self.on_message_received(message)

    async def flush(self) -> None:
        """Return at once: `publish` returns when a message was passed on."""

    async def end_others(self, reason: str | None) -> None:
        """Do nothing: each runner has a bus of its own, and is ended by itself."""

    async def publish(self, message: theirs.BusMessage) -> None:
        """Deliver a message here, and send it to the others it is for.

        Raises:
            MessageEncodeError: A field cannot travel; it names the field.
            BusError: The bus is not running, or its receiver makes no room.
        """
        if self._link is None:
            raise BusClosedError("not started")
        left = await self._link.pass_on(message)
        self.on_message_received(message)
        if not left:
            await self._link.show(message)

    async def send(self, message: theirs.BusMessage) -> None:
        """Send a message; those that are local reach subscribers of this process only."""
        await super().send(message)
        if isinstance(message, theirs.BusLocalMessage) and self._link is not None:
            await self._link.show(message)
