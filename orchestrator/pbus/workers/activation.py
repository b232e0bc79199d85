"""Activation and deactivation of workers, and handing over to another worker."""

import dataclasses
import inspect
import logging
from typing import Any, ClassVar, Self

from pbus.bus.local.lane_hold import release_lane
from pbus.errors import HandlerDefinitionError, PbusError
from pbus.messages import BusActivateWorkerMessage, BusDeactivateWorkerMessage, BusMessage
from pbus.workers.core import base_hook
from pbus.workers.sending import SendingMixin

logger = logging.getLogger(__name__)

REGISTERED_WITHIN_S = 5.0  # a worker that was just added is ready by then; a wrong name never is
HOOK_TIMEOUT_S = 5.0  # messages are handled beside a hook that takes longer


@dataclasses.dataclass(kw_only=True)
class WorkerActivationArgs:
    """Arguments of an activation. Subclass it (as a dataclass) to add fields.

    Attributes:
        metadata: Free JSON values.
    """

    metadata: dict[str, Any] | None = None

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make arguments.

        Raises:
            HandlerDefinitionError: A subclass has fields, and is no dataclass.
        """
        for owner in cls.__mro__:
            if "__dataclass_fields__" not in vars(owner) and inspect.get_annotations(owner):
                problem = "its fields are not those of a dataclass"
                hint = "put @dataclass(kw_only=True) above it"
                raise HandlerDefinitionError(owner.__qualname__, problem, hint=hint)
        return super().__new__(cls)

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None, as they are sent."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> Self:
        """Make arguments from a dict as it was sent; unknown keys are ignored. Raises as the class."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in (values or {}).items() if name in names})


class ActivationMixin(SendingMixin):
    """Adds activation: only an active worker gets data and new jobs."""

    EVENTS = frozenset({"on_activated", "on_deactivated"})
    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusActivateWorkerMessage: "_receive_activation",
        BusDeactivateWorkerMessage: "_receive_deactivation",
    }

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        super().__init__(name)
        self._active = active
        self._activation_args: dict[str, Any] | None = None
        self._is_publishing = False
        self._is_published = True

    @property
    def active(self) -> bool:
        """Whether it gets data and new jobs."""
        return self._active

    @property
    def activation_args(self) -> dict[str, Any] | None:
        """The arguments of the last activation; None while it is inactive."""
        return self._activation_args

    @base_hook
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """Handle its activation, also with new arguments while it is active."""

    @base_hook
    async def on_deactivated(self) -> None:
        """Handle its deactivation, also while it is inactive."""

    async def activate_worker(
        self,
        name: str,
        *,
        args: WorkerActivationArgs | dict[str, Any] | None = None,
        deactivate_self: bool = False,
    ) -> None:
        """Activate a worker, or the replicas of a group.

        Args:
            name: The worker's or the group's; waits up to 5 s until it is ready.
            args: The arguments of the activation.
            deactivate_self: Whether to hand over: this worker is deactivated at once, unless the
                message cannot be sent, so that one of the two is always active.

        Raises:
            WorkerNotFoundError: There is no such worker.
            PbusError: The message cannot be sent.
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
        """Deactivate a worker, or the replicas of a group.

        Args:
            name: The worker's or the group's; waits up to 5 s until it is ready.

        Raises:
            WorkerNotFoundError: There is no such worker.
            PbusError: The message cannot be sent.
        """
        await self._check_there(name)
        await self.send_bus_message(BusDeactivateWorkerMessage(source=self.address, target=name))

    async def _hand_over(self, activation: BusActivateWorkerMessage) -> None:
        was_active, self._active = self._active, False  # from now on data is for the other worker
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
        with release_lane():
            await self.registry.wait_ready(name, REGISTERED_WITHIN_S)

    def restore_activation(self, *, active: bool, args: dict[str, Any] | None) -> None:
        """Restore the activation of an earlier incarnation, before run().

        Args:
            active: Whether it was active.
            args: The arguments of its last activation.
        """
        self._active = active
        self._activation_args = args if active else None

    async def _receive_activation(self, message: BusActivateWorkerMessage) -> None:
        self._active = True
        self._activation_args = message.args
        await self._report_activation()

    async def _receive_deactivation(self, message: BusDeactivateWorkerMessage) -> None:
        del message
        self._active = False
        self._activation_args = None
        await self._report_activation()

    async def _report_activation(self) -> None:
        """Update the registry and call the hook; before the start hooks are not called."""
        self._publish_activation()
        if not self._has_started.is_set:
            return
        if self._active:
            await self._call_activated()
        else:
            await self._call_hook("on_deactivated", timeout_s=HOOK_TIMEOUT_S)

    async def _call_activated(self) -> None:
        await self._call_hook("on_activated", self._activation_args, timeout_s=HOOK_TIMEOUT_S)

    def _publish_activation(self) -> None:
        """Update the registry, in a task: the lane must not wait for the broker."""
        self._is_published = False
        if not self._is_publishing:
            self._is_publishing = True
            self._spawn_task(self._update_registry(), f"{self.name} activation")

    async def _update_registry(self) -> None:
        try:
            while not self._is_published:
                self._is_published = True
                await self.registry.set_active(
                    self.name, active=self._active, args=self._activation_args
                )
        except PbusError as error:
            logger.warning("%s: the registry does not know of its activation: %s", self.name, error)
        finally:
            self._is_publishing = False
