"""BaseWorker: the class that users subclass."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from pbus.bus.base import WorkerBus
from pbus.handlers import Handlers, find_handlers
from pbus.leases import ChildState
from pbus.messages import BusCancelMessage, BusEndMessage
from pbus.registry import WorkerFigures, WorkerRegistry
from pbus.workers.core import Runner
from pbus.workers.definition import check_attributes, check_worker_class
from pbus.workers.job_handling import DEFAULT_MAX_QUEUED_JOBS
from pbus.workers.lifecycle import LifecycleMixin

# Private attributes that change before run().
_CHANGING = frozenset({"_active", "_activation_args", "_starting", "_pbus_state"})


@functools.cache
def _attributes() -> frozenset[str]:
    """The attributes that BaseWorker gives its instances."""
    return frozenset(vars(BaseWorker("probe")))


class _State:
    """Attributes of a worker at one moment; workers of one class share their names.

    Args:
        values: The attributes.
    """

    __slots__ = ("_names", "_values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._names = _shared(tuple(values))
        self._values = tuple(values.values())

    def items(self) -> dict[str, Any]:
        """The attributes by name."""
        return dict(zip(self._names, self._values, strict=True))


@functools.lru_cache(maxsize=64)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    return names


def _state_of(worker: "BaseWorker") -> dict[str, Any]:
    """A worker's private attributes, except those that change before run()."""
    values = vars(worker).items()
    return {name: one for name, one in values if name[0] == "_" and name not in _CHANGING}


def _lasting_state_of(worker: "BaseWorker") -> dict[str, Any]:
    """The private attributes that stay the same objects while the worker is attached."""
    simple = bool | int | str | None
    return {name: one for name, one in _state_of(worker).items() if not isinstance(one, simple)}


class BaseWorker(LifecycleMixin):
    """A worker on the bus: subclass it, mark handlers with @job and @worker_ready, override hooks.

    Hooks and handlers of data messages run one at a time, in order of arrival; jobs run beside
    them, each in a task of its own. While a hook or handler waits for a job of its own, only job
    messages come in: answers, updates, cancels, new requests.

    Args:
        name: Its address; random when not given.
        active: Whether it starts active.
        interleave: Whether the next message is handled while a hook or handler waits for its job.
            The worker's state may then differ after the wait.
        max_queued_jobs: The number of jobs that are accepted at once. Further ones are answered
            "busy", unless the broker stores them.
        max_concurrency: The number of jobs that run at once; None for all. The others wait, urgent
            ones go first. A job runs until it is answered, pending or not.

    Raises:
        WorkerNameError: The bus cannot address the name.
        ValueError: max_concurrency is less than 1.
    """

    HANDLERS: ClassVar[Handlers] = Handlers({}, {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find the marked handlers, so that mistakes show where the class is defined."""
        super().__init_subclass__(**kwargs)
        check_worker_class(cls, BaseWorker, _attributes())
        cls.HANDLERS = find_handlers(cls)

    def __init__(
        self,
        name: str | None = None,
        *,
        active: bool = True,
        interleave: bool = False,
        max_queued_jobs: int = DEFAULT_MAX_QUEUED_JOBS,
        max_concurrency: int | None = None,
    ) -> None:
        super().__init__(name, active=active)
        if max_concurrency is not None and max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        self._keeps_order = not interleave
        self._max_queued_jobs = max_queued_jobs
        self._max_concurrency = max_concurrency
        self._pbus_state = _State(_state_of(self))

    async def end(self, reason: str | None = None) -> None:
        """End the session: all its workers finish what is queued, then stop.

        Args:
            reason: For people.

        Raises:
            PbusError: The message cannot be sent.
        """
        await self.send_bus_message(
            BusEndMessage(source=self.address, reason=reason, session=self.registry.session)
        )

    async def cancel(self, reason: str | None = None) -> None:
        """Cancel the session: all its workers stop at once.

        Args:
            reason: For people.

        Raises:
            PbusError: The message cannot be sent.
        """
        await self.send_bus_message(
            BusCancelMessage(source=self.address, reason=reason, session=self.registry.session)
        )

    def lease_figures(self) -> WorkerFigures:
        """The figures that its lease carries."""
        executor = self._made_job_executor
        return WorkerFigures(
            sent=self.sent,
            working=len(self.active_jobs),
            done=0 if executor is None else executor.responder.finished,
            handler=self._oldest_handler(),
            children=self._child_states(1),
        )

    def _child_states(self, depth: int) -> list[ChildState]:
        """The children that have started, each before its own."""
        found = []
        for child in self.children:
            if not (isinstance(child, BaseWorker) and child._is_alive):  # noqa: SLF001 - of the same class
                continue
            own = ChildState(
                name=child.name,
                depth=depth,
                active=child.active,
                started_at=child.started_at or 0.0,
                received=self.bus.stats(child.name).received,
                sent=child.sent,
                working=len(child.active_jobs),
            )
            found += [own, *child._child_states(depth + 1)]  # noqa: SLF001 - likewise
        return found

    async def attach(self, *, registry: WorkerRegistry, bus: WorkerBus, runner: Runner) -> None:
        """Attach the worker to a runner; see LifecycleMixin."""
        await super().attach(registry=registry, bus=bus, runner=runner)
        self._pbus_state = _State(_lasting_state_of(self))

    def _check_attributes(self) -> None:
        check_attributes(self, self._pbus_state.items(), _attributes())
