"""Restarts of workers whose files were changed."""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pbus.concurrency.waiting import unless_set
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.watching.file_watch import FileWatch
from pbus.process.watching.snapshot import Root
from pbus.topology.model import Topology, WorkerSpec

_PYTHON = ".py"
_MAX_NAMES = 3


class CodeWatch:
    """Watches the files of workers, and restarts who uses a changed one.

    Args:
        topology: The topology.
        workers: Its workers that are to run.
        is_on: Also those without `watch` are watched, by the Python files beside the topology.
    """

    def __init__(
        self, topology: Topology, workers: Iterable[WorkerProcess], *, is_on: bool
    ) -> None:
        self._all = workers
        self._workers: dict[Root, list[WorkerProcess]] = {}
        self._watch: FileWatch | None = None
        self._has_other_roots = asyncio.Event()
        self.refresh(topology, is_on=is_on)

    def refresh(self, topology: Topology, *, is_on: bool) -> None:
        """Watch for the workers as they are now; arguments as of the class."""
        before, self._workers = self._workers, {}
        self._folder = topology.folder
        for worker in self._all:
            spec = worker.next_instance.spec
            roots = _roots_of(spec, _code_roots(topology, spec) if is_on else [])
            worker.target.is_watched = bool(roots)
            for root in roots:
                self._workers.setdefault(root, []).append(worker)
        if before.keys() != self._workers.keys():
            self._watch = FileWatch(self._workers, self._on_change) if self._workers else None
            self._has_other_roots.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._has_other_roots.clear()
            if self._watch is None:
                await self._has_other_roots.wait()
            else:
                await unless_set(self._has_other_roots, self._watch.run())

    def _on_change(self, changes: Mapping[Root, Sequence[str]]) -> None:
        paths: dict[WorkerProcess, set[str]] = {}
        for root, changed in changes.items():
            for worker in self._workers.get(root, ()):
                paths.setdefault(worker, set()).update(changed)
        for worker, found in paths.items():
            worker.reload(f"changed: {self._names(found)}")

    def _names(self, paths: Iterable[str]) -> str:
        names = sorted(self._name(path) for path in paths)
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        return ", ".join(names[:_MAX_NAMES]) + more

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self._folder}{os.sep}")


def _roots_of(spec: WorkerSpec, code: Sequence[Root]) -> Sequence[Root]:
    if spec.watch is not None:
        return [Root(path) for path in spec.watch]
    return code if spec.worker is not None else ()


def _code_roots(topology: Topology, spec: WorkerSpec) -> list[Root]:
    """The folders of the worker's file and of the topology, and of files that these link to.

    Classes are imported from there.
    """
    folders: dict[str, Path] = {}
    files = (spec.file, *(member.file for member in spec.members), topology.file)
    for file in filter(None, files):
        folders.setdefault(os.path.realpath(file.parent), file.parent)
        target = Path(os.path.realpath(file)).parent
        folders.setdefault(str(target), target)
    return [Root(folder, _PYTHON) for folder in folders.values()]
