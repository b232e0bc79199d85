"""All of Pipecat that pbus touches; `tests/pipecat/test_theirs.py` fails where that changes.

Everything here is public but what NON_PUBLIC lists.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from typing import Any

from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema as ToolsSchema
from pipecat.bus import AsyncQueueBus as AsyncQueueBus
from pipecat.bus import BusActivateWorkerMessage as BusActivateWorkerMessage
from pipecat.bus import BusAddWorkerMessage as BusAddWorkerMessage
from pipecat.bus import BusCancelMessage as BusCancelMessage
from pipecat.bus import BusDeactivateWorkerMessage as BusDeactivateWorkerMessage
from pipecat.bus import BusEndMessage as BusEndMessage
from pipecat.bus import BusEndWorkerMessage as BusEndWorkerMessage
from pipecat.bus import BusFrameMessage as BusFrameMessage
from pipecat.bus import BusJobCancelMessage as BusJobCancelMessage
from pipecat.bus import BusJobRequestMessage as BusJobRequestMessage
from pipecat.bus import BusJobResponseMessage as BusJobResponseMessage
from pipecat.bus import BusJobUpdateMessage as BusJobUpdateMessage
from pipecat.bus import BusJobUpdateUrgentMessage as BusJobUpdateUrgentMessage
from pipecat.bus import BusLocalMessage as BusLocalMessage
from pipecat.bus import BusMessage as BusMessage
from pipecat.bus import BusSubscriber as BusSubscriber
from pipecat.bus import BusSystemMessage as BusSystemMessage
from pipecat.bus import BusWorkerReadyMessage as BusWorkerReadyMessage
from pipecat.bus import BusWorkerRegistryMessage as BusWorkerRegistryMessage
from pipecat.bus import WorkerBus as WorkerBus
from pipecat.bus.adapters import LLMContextAdapter, ToolsSchemaAdapter
from pipecat.frames.frames import Frame as Frame
from pipecat.processors.aggregators.llm_context import LLMContext as LLMContext
from pipecat.processors.frame_processor import FrameDirection as FrameDirection
from pipecat.registry.types import WorkerReadyData as WorkerReadyData
from pipecat.workers.base_worker import BaseWorker as BaseWorker
from pipecat.workers.runner import WorkerRunner as WorkerRunner

OLDEST = (1, 8)
TESTED = "1.14.0"
NON_PUBLIC = {
    "WorkerRegistry._remote_workers": "a worker that was lost is forgotten: Pipecat never does",
    "WorkerRunner._entries": "the process is ready when all its root workers are, and ends with them",
    "WorkerBus.stop": "wrapped on the bus of a runner: Pipecat has no event for the end of a runner",
}
ADAPTERS = {LLMContext: LLMContextAdapter(), ToolsSchema: ToolsSchemaAdapter()}


def version_problem() -> str | None:
    """The reason why the installed Pipecat cannot be joined; None where it can."""
    found = version("pipecat-ai")
    numbers = tuple(int(part) if part.isdigit() else 0 for part in found.split(".")[:2])
    if numbers < OLDEST or numbers[0] != OLDEST[0]:
        return f"Pipecat {found} is not supported: pbus knows 1.8 and later ones of 1.x"
    return None


def is_in_process(bus: WorkerBus) -> bool:
    """Whether the messages of a bus stay in this process."""
    return isinstance(bus, AsyncQueueBus) and type(bus).publish is AsyncQueueBus.publish


def root_names(runner: WorkerRunner) -> list[str]:
    """The names of a runner's root workers, those included that have not started."""
    entries: dict[str, Any] = runner._entries  # noqa: SLF001 - listed above
    return [name for name, entry in entries.items() if entry.worker.parent is None]


def started_names(runner: WorkerRunner) -> list[str]:
    """The names of a runner's workers that have started and not ended, children included."""
    entries: dict[str, Any] = runner._entries  # noqa: SLF001 - listed above
    return [
        name
        for name, entry in entries.items()
        if entry.worker.started_at is not None
        and not (entry.runner_task is not None and entry.runner_task.done())
    ]


async def until_workers_ended(runner: WorkerRunner) -> None:
    """Return when the tasks of all root workers that were started are over."""
    tasks = [entry.runner_task for entry in runner._entries.values()]  # noqa: SLF001 - listed above
    started = [task for task in tasks if task is not None]
    if started:
        await asyncio.wait(started)


def forget_worker(runner: WorkerRunner, of_runner: str, name: str) -> None:
    """Drop a worker of another runner from a runner's registry."""
    remote: dict[str, dict[str, Any]] = runner.registry._remote_workers  # noqa: SLF001 - listed above
    workers = remote.get(of_runner, {})
    workers.pop(name, None)
    if not workers:
        remote.pop(of_runner, None)


def when_stopped(bus: WorkerBus, call: Callable[[], Awaitable[None]]) -> None:
    """Call a function once, before a bus stops: its runner has ended its workers then."""
    stop = bus.stop

    @functools.wraps(stop)
    async def stop_both() -> None:
        bus.stop = stop
        try:
            await call()
        finally:
            await stop()

    bus.stop = stop_both


_HOOKS = ("on_bus_message", "accepts_bus_message")
_TO_OWN_NAME = frozenset({  # of these modules a message for another name has no effect on a worker
    "pipecat.bus.subscriber",
    "pipecat.workers.base_worker",
    "pipecat.pipeline.worker",
})
_TO_RUNNERS = (BusEndMessage, BusCancelMessage, BusAddWorkerMessage, BusWorkerRegistryMessage)


def wanted_by(subscriber: BusSubscriber) -> Callable[[BusMessage], bool]:
    """Return a function that says whether a message can have an effect on a subscriber.

    All can where the subscriber has code of its own for them; Pipecat's runners and workers drop the most.
    """
    classes = type(subscriber).__mro__
    modules = {cls.__module__ for cls in classes for hook in _HOOKS if hook in vars(cls)}
    if any(hook in vars(subscriber) for hook in _HOOKS):
        return lambda _message: True
    if modules <= {"pipecat.bus.subscriber", "pipecat.workers.runner"}:
        return lambda message: isinstance(message, _TO_RUNNERS)
    if modules <= _TO_OWN_NAME:
        to_own_name = {None, "", subscriber.name}
        return lambda message: message.target in to_own_name
    return lambda _message: True


def is_own_class(cls: type) -> bool:
    """Whether a class is Pipecat's own."""
    return cls.__module__.startswith("pipecat.")


def subclasses_of(base: Any) -> Iterator[Any]:
    """All classes below one that this process has defined so far, each once."""
    seen: set[Any] = set()
    waiting = [base]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            if cls not in seen:
                seen.add(cls)
                waiting.append(cls)
                yield cls
