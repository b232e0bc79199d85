"""The stored messages of a project: its dead letters, and what waits for a worker."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from pbus.bus.base import WorkerBus
from pbus.bus.queues.store import DeadLetter, QueueStore
from pbus.errors import DeadLetterNotFoundError, NoStoredMessagesError
from pbus.names import stands_for, unknown_name

_SHOWN: Final = 10_000  # what a store lists at once
_Action = Callable[[Sequence[str]], Awaitable[int]]


def store_of(bus: WorkerBus, project: str) -> QueueStore:
    """The store of a project's messages.

    Raises:
        NoStoredMessagesError: It has none.
    """
    if bus.queues is None:
        raise NoStoredMessagesError(project)
    return bus.queues


async def purge(store: QueueStore, worker: str) -> int:
    """Drop the messages that wait for a worker, or for all replicas of a group.

    Returns:
        How many.

    Raises:
        UnknownNameError: Nothing has a queue of that name.
    """
    names = [report.name for report in await store.stats()]
    meant = [name for name in names if stands_for(worker, name)]
    if not meant:
        raise unknown_name("queue", worker, names)
    return sum([await store.purge(name) for name in meant])


class DeadLetters:
    """Messages that were tried too often: list them, put them back, drop them.

    Every method raises NoStoredMessagesError where the project stores no messages, and
    BusUnavailableError where the broker does not answer.

    Args:
        bus: Started by the time of the first call.
        project: The project's name.
    """

    def __init__(self, bus: WorkerBus, project: str) -> None:
        self._bus = bus
        self._project = project

    async def list(self, worker: str | None = None) -> "Sequence[DeadLetter]":
        """The dead letters of a worker or of all, oldest first, at most 10,000."""
        return await self._store.dead_letters(worker)

    async def get(self, key: str) -> DeadLetter:
        """One dead letter.

        Raises:
            DeadLetterNotFoundError: None has this key.
        """
        for found in await self._store.dead_letters():
            if found.key == key:
                return found
        raise DeadLetterNotFoundError([key])

    async def requeue(self, *keys: str, worker: str | None = None, every: bool = False) -> int:
        """Put dead letters back into their queues, their attempts counted from zero.

        Args:
            keys: Which; or, without keys, those of a worker or every one.
            worker: All of this worker.
            every: All.

        Returns:
            How many.

        Raises:
            DeadLetterNotFoundError: Some keys are unknown; the others are done.
            ValueError: Neither keys nor a worker nor every=True were given, or more than one.
        """
        return await self._act("requeue_dead", keys, worker, every=every)

    async def drop(self, *keys: str, worker: str | None = None, every: bool = False) -> int:
        """Remove dead letters for good. Arguments and errors as requeue()."""
        return await self._act("drop_dead", keys, worker, every=every)

    async def _act(
        self, method: str, keys: Sequence[str], worker: str | None, *, every: bool
    ) -> int:
        if bool(keys) == (every or worker is not None):
            raise ValueError("name dead letters by key, or choose them with worker= or every=True")
        store = self._store
        act = store.requeue_dead if method == "requeue_dead" else store.drop_dead
        return await (self._act_on_keys(act, keys) if keys else self._act_on_all(act, worker))

    async def _act_on_keys(self, act: _Action, keys: Sequence[str]) -> int:
        known = {one.key for one in await self._store.dead_letters()}
        done = await act([key for key in keys if key in known])
        if unknown := sorted(set(keys) - known):
            raise DeadLetterNotFoundError(unknown, done)
        return done

    async def _act_on_all(self, act: _Action, worker: str | None) -> int:
        total = 0
        while found := [one.key for one in await self._store.dead_letters(worker)]:
            done = await act(found)
            total += done
            if not done or len(found) < _SHOWN:
                break
        return total

    @property
    def _store(self) -> QueueStore:
        return store_of(self._bus, self._project)
