"""Being active or not, and handing over to another worker."""

import dataclasses
import logging
from typing import Any, ClassVar, Self

from pbus.bus.local.lane_hold import lending
from pbus.errors import PbusError
from pbus.messages import BusActivateWorkerMessage, BusDeactivateWorkerMessage, BusMessage
from pbus.workers.core import base_hook
from pbus.workers.sending import SendingMixin

logger = logging.getLogger(__name__)

REGISTERED_WITHIN_S = 5.0  # a worker that was just added is ready by then; a wrong name never is
HOOK_PATIENCE_S = 5.0  # a hook that takes longer does work: messages are handled beside it


@dataclasses.dataclass(kw_only=True)
class WorkerActivationArgs:
    """What a worker is told when it is activated; subclass it (as a dataclass) to say more.

    Attributes:
        metadata: Free JSON values.
    """

    metadata: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What travels: the fields that are not None."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> Self:
        """The arguments that travelled; what is not a field is left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in (values or {}).items() if name in names})


class ActivationMixin(SendingMixin):
    """Lets a worker be active or not; only an active one gets data and new jobs."""

    EVENTS = frozenset({"on_activated", "on_deactivated"})
    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusActivateWorkerMessage: "_take_activation",
        BusDeactivateWorkerMessage: "_take_deactivation",
    }

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        super().__init__(name)
        self._active = active
        self._activation_args: dict[str, Any] | None = None
        self._is_telling = False
        self._is_told = True

    @property
    def active(self) -> bool:
        """Whether it gets data and new jobs."""
        return self._active

    @property
    def activation_args(self) -> dict[str, Any] | None:
        """What it was last activated with; None while it is inactive."""
        return self._activation_args

    @base_hook
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """It became active, or was activated again with other arguments."""

    @base_hook
    async def on_deactivated(self) -> None:
        """It became inactive, or was told so again."""

    async def activate_worker(
        self,
        name: str,
        *,
        args: WorkerActivationArgs | dict[str, Any] | None = None,
        deactivate_self: bool = False,
    ) -> None:
        """Have a worker (or a group's replicas) become active.

        Args:
            name: Whom; a worker that is not ready yet is waited for, up to 5 s.
            args: What it is told.
            deactivate_self: Hand over: become inactive oneself, at once. Not done when the other
                cannot be told, so that one of the two is always active.

        Raises:
            WorkerNotFoundError: There is no such worker.
        """
        values = args.to_dict() if isinstance(args, WorkerActivationArgs) else args
        await self._check_there(name)
        activation = BusActivateWorkerMessage(source=self.address, target=name, args=values)
        if not deactivate_self:
            await self.send_bus_message(activation)
        elif name == self.name:
            await self.deactivate_worker(name)
            await self.send_bus_message(activation)
        else:
            await self._hand_over(activation)

    async def deactivate_worker(self, name: str) -> None:
        """Have a worker (or a group's replicas) become inactive.

        Raises:
            WorkerNotFoundError: There is no such worker.
        """
        await self._check_there(name)
        await self.send_bus_message(BusDeactivateWorkerMessage(source=self.address, target=name))

    async def _hand_over(self, activation: BusActivateWorkerMessage) -> None:
        was_active, self._active = self._active, False  # from now on nothing is taken in twice
        try:
            await self.send_bus_message(activation)
        except BaseException:
            self._active = was_active
            raise
        await self.send_bus_message(
            BusDeactivateWorkerMessage(source=self.address, target=self.name)
        )

    async def _check_there(self, name: str) -> None:
        if name == self.name or name in self.registry:
            return
        with lending():
            await self.registry.wait_ready(name, REGISTERED_WITHIN_S)

    def restore_activation(self, *, active: bool, args: dict[str, Any] | None) -> None:
        """Begin as an earlier life of this worker was last told to be; before run()."""
        self._active = active
        self._activation_args = args if active else None

    async def _take_activation(self, message: BusActivateWorkerMessage) -> None:
        self._active = True
        self._activation_args = message.args
        await self._tell_activation()

    async def _take_deactivation(self, message: BusDeactivateWorkerMessage) -> None:
        del message
        self._active = False
        self._activation_args = None
        await self._tell_activation()

    async def _tell_activation(self) -> None:
        """Tell the registry and the hooks; before the worker has begun it is only remembered."""
        self._publish_activation()
        if not self._begun.is_set():
            return
        if self._active:
            await self._tell_activated()
        else:
            await self._call_hook("on_deactivated", patience=HOOK_PATIENCE_S)

    async def _tell_activated(self) -> None:
        await self._call_hook("on_activated", self._activation_args, patience=HOOK_PATIENCE_S)

    def _publish_activation(self) -> None:
        """Have the registry know, and remember it for a restart, without keeping the lane busy."""
        self._is_told = False
        if not self._is_telling:
            self._is_telling = True
            self._spawn(self._tell_registry(), f"{self.name} activation")

    async def _tell_registry(self) -> None:
        try:
            while not self._is_told:
                self._is_told = True
                await self.registry.set_active(
                    self.name, active=self._active, args=self._activation_args
                )
        except PbusError as error:
            logger.warning("%s: the registry does not know of its activation: %s", self.name, error)
        finally:
            self._is_telling = False
