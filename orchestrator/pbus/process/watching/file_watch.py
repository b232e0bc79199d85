"""Watching files: the system says that something changed, snapshots say what."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from watchfiles import Change, awatch

from pbus.process.watching.snapshot import MAX_ENTRIES, Root, Snapshot, is_ignored, take_snapshot

_SETTLE_S: Final = 0.1  # without a further change, before it is reported
_SETTLE_TRIES: Final = 50
_GATHER_MS: Final = 400
_LOOK_MS: Final = 5_000  # for what the system does not report, as of network file systems
_LOOK_ALONE_S: Final = 1.0  # where the system reports nothing

logger = logging.getLogger(__name__)


class FileWatch:
    """Reports changes of files until cancelled.

    A folder may be removed and made again, a file saved by renaming another: what counts is the
    difference of two snapshots, so no change is lost, and many at once are reported together. The first
    snapshot is taken here: a worker that is started afterwards may read a file before `run` begins.

    Args:
        roots: What is watched.
        on_change: Called with the changed paths by root.
    """

    def __init__(
        self, roots: Collection[Root], on_change: Callable[[Mapping[Root, Sequence[str]]], None]
    ) -> None:
        self._roots = tuple(roots)
        self._on_change = on_change
        self._last = take_snapshot(self._roots)
        self._can_listen = True
        self._cut: set[Root] = set()  # told
        wanted = {one for root in roots for one in (root.path, *root.path.parents)}
        self._wanted = frozenset(map(str, wanted))

    async def run(self) -> None:
        """Watch for changes since the object was made; a second run goes on after the first."""
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of each event
        last = self._last
        self._tell_cut(last)
        while True:
            await self._wait(last)
            now = await self._settled(last)
            changes = now.changes_since(last)
            last = self._last = now
            self._tell_cut(now)
            if changes:
                self._on_change(changes)

    def _tell_cut(self, now: Snapshot) -> None:
        for root in now.cut:
            if root not in self._cut:
                self._cut.add(root)
                logger.warning(
                    "%s has more than %s files and folders: changes of the others are not seen;"
                    " watch less of it",
                    root.path,
                    f"{MAX_ENTRIES:,}",
                )

    async def _look(self) -> Snapshot:
        return await asyncio.to_thread(take_snapshot, self._roots)

    async def _settled(self, last: Snapshot) -> Snapshot:
        """Return a snapshot after which nothing changed for a moment."""
        now = await self._look()
        if not now.changes_since(last):
            return now
        for _ in range(_SETTLE_TRIES):
            await asyncio.sleep(_SETTLE_S)
            before, now = now, await self._look()
            if not now.changes_since(before):
                break
        return now

    async def _wait(self, last: Snapshot) -> None:
        """Wait until something may have changed since a snapshot."""
        try:
            await self._listen(last)
        except (OSError, RuntimeError) as error:  # too many watches, or a folder has just gone
            if self._can_listen and not isinstance(error, FileNotFoundError):
                self._can_listen = False
                logger.warning("changes of files are looked for each second: %s", error)
            await asyncio.sleep(_LOOK_ALONE_S)

    async def _listen(self, last: Snapshot) -> None:
        events = awatch(
            *last.folders,
            watch_filter=lambda change, path: self._is_relevant(last, change, path),
            debounce=_GATHER_MS,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            recursive=False,
        )
        async with contextlib.aclosing(events):
            waiting = asyncio.ensure_future(anext(events))
            try:
                await asyncio.sleep(0)  # it listens now; what changed before is found by looking
                now = await self._look()
                if now.folders == last.folders and not now.changes_since(last):
                    await waiting
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    def _is_relevant(self, last: Snapshot, _change: Change, path: str) -> bool:
        place = Path(path)
        if path in self._wanted or path in last.folders:
            return True
        return str(place.parent) in last.folders and not is_ignored(place.name)
