"""What workers say when they leave: how many messages waited in them and are lost."""

import asyncio
from collections.abc import Iterable

from pbus.messages import WorkerRegistryEntry

_ON_ITS_WAY_S = 1.0  # an announcement that was sent before its process ended


class Farewells:
    """Notes the announcements of a supervisor's own processes."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}  # by what its incarnations begin with

    def begin(self, incarnation: str) -> None:
        """A process is about to begin."""
        self._lives[incarnation] = _Life()

    def hear(self, entry: WorkerRegistryEntry) -> None:
        """Take in what is announced of a worker; strangers are not meant."""
        found = (life for one, life in self._lives.items() if entry.incarnation.startswith(one))
        life = next(found, None)
        if life is None:
            return
        if entry.gone is None:
            life.present.add(entry.incarnation)
        else:
            life.present.discard(entry.incarnation)
            life.unhandled += entry.unhandled
            life.changed.set()

    async def wait_for(self, incarnations: Iterable[str]) -> None:
        """Wait, not long, until processes that have ended have been heard to leave."""
        lives = [self._lives[one] for one in incarnations if one in self._lives]
        try:
            async with asyncio.timeout(_ON_ITS_WAY_S):
                for life in lives:
                    while life.present:
                        await life.changed.wait()
                        life.changed.clear()
        except TimeoutError:
            return

    def end(self, incarnation: str) -> int:
        """Forget a process; returns how many messages were lost with it, as far as it said."""
        life = self._lives.pop(incarnation, None)
        return 0 if life is None else life.unhandled


class _Life:
    """One process.

    Attributes:
        present: The incarnations of its workers that are there.
        unhandled: What those lost that have left.
    """

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.unhandled = 0
        self.changed = asyncio.Event()
