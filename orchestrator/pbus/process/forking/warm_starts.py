"""Starts of worker processes: by a fork of the zygote where that can be, else by exec."""

import asyncio
import functools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pbus.process.forking.fork_messages import ZygoteSpec
from pbus.process.forking.zygote_client import Zygote, ZygoteError
from pbus.process.system.launch_plan import Launch
from pbus.process.system.spawn import ChildProcess, Start, start_by_exec

_RETRY_S: Final = 30.0  # after a zygote that did not work
_MOST_BYTES: Final = 64 * 1024  # of a variable: what is too long is told by exec
_MOST_BYTES_OF_ALL: Final = 512 * 1024
# Read when an interpreter or a library starts, so that a fork would not see another value.
_EARLY: Final = ("PYTHON", "LD_", "LC_", "MALLOC_", "OPENSSL_", "COVERAGE_")
_EARLY_NAMES: Final = frozenset({"LANG", "LANGUAGE", "GLIBC_TUNABLES", "HOME", "LOCPATH"})

Note = Callable[[str], None]

logger = logging.getLogger(__name__)


class WarmStarts:
    """The zygote of a supervisor: started for the first worker that can be forked, and renewed.

    Args:
        spec: What it imports.
        env: Its environment.
        log: Where it writes.
    """

    def __init__(self, spec: ZygoteSpec, env: Mapping[str, str], log: Path) -> None:
        self._spec = spec
        self._env = env
        self._log = log
        self._zygote: Zygote | None = None
        self._retry_at = 0.0
        self._told: set[str] = set()

    async def starter(self, launch: Launch, note: Note) -> Start:
        """Return what starts a process: a fork where the zygote is ready, or else an exec.

        Args:
            launch: The worker's.
            note: Called with the reason, once, where a worker that is to be forked is not.
        """
        if not (launch.is_forkable and can_fork(launch, self._env)):
            return start_by_exec
        zygote = await self._ready(note)
        if zygote is None:
            return start_by_exec
        return functools.partial(self._fork, zygote, note)

    async def close(self) -> None:
        """End the zygote. Idempotent."""
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.close()

    async def _ready(self, note: Note) -> Zygote | None:
        """Return a zygote that can fork, a new one where files have changed; None if there is none."""
        if self._zygote is not None and (self._zygote.is_lost or self._zygote.has_changed()):
            await self.close()
        if self._zygote is None:
            if asyncio.get_running_loop().time() < self._retry_at:
                return None
            try:
                self._zygote = Zygote(self._spec, self._env, self._log)
            except OSError as error:
                await self._give_up(None, error, note)
                return None
        zygote = self._zygote
        try:
            await zygote.wait_ready()
        except ZygoteError as error:
            if not error.is_late:
                await self._give_up(zygote, error, note)
            self._tell(f"started by exec: {error}", note)
            return None
        for problem in zygote.problems:
            self._tell(problem, note)
        return zygote

    async def _fork(self, zygote: Zygote, note: Note, launch: Launch) -> ChildProcess:
        if not zygote.is_lost:
            try:
                return await zygote.fork(launch)
            except ZygoteError as error:
                if self._zygote is zygote:  # not one that was renewed meanwhile
                    await self._give_up(zygote, error, note)
        return await start_by_exec(launch)

    async def _give_up(self, zygote: Zygote | None, error: Exception, note: Note) -> None:
        """Use exec for a while."""
        self._tell(f"started by exec: {error}", note)
        self._retry_at = asyncio.get_running_loop().time() + _RETRY_S
        if self._zygote is zygote:
            await self.close()

    def _tell(self, text: str, note: Note) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.warning("%s", text)
            note(text)


def can_fork(launch: Launch, env: Mapping[str, str]) -> bool:
    """Whether a fork of a zygote differs in nothing from a process that is started by exec.

    Args:
        launch: The process to start.
        env: The zygote's environment.
    """
    is_alike = launch.cwd.is_dir() and _early(launch.env) == _early(env)
    return is_alike and _has_absolute_path(launch.env) and _can_be_passed(launch.env)


def _has_absolute_path(env: Mapping[str, str]) -> bool:
    """Whether the import path is the same in any folder."""
    path = env.get("PYTHONPATH")
    return path is None or all(part.startswith(os.sep) for part in path.split(os.pathsep))


def _can_be_passed(env: Mapping[str, str]) -> bool:
    """Whether a program can be given these variables."""
    sizes = [len(os.fsencode(key + value)) for key, value in env.items()]
    if max(sizes, default=0) > _MOST_BYTES or sum(sizes) > _MOST_BYTES_OF_ALL:
        return False
    return all(key and "=" not in key and "\0" not in key + value for key, value in env.items())


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value for key, value in env.items() if key.startswith(_EARLY) or key in _EARLY_NAMES
    }
