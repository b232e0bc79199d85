"""State that a supervisor leaves to the next one of its project, however it ends.

Its address and the incarnations it did not release: both are over when the next one has the project.
The names of its durable queues: those that the topology no longer has are removed.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pbus.process.system.regular_files import read, write

logger = logging.getLogger(__name__)


class StopTime(msgspec.Struct, frozen=True):
    """The time that running jobs get when a project is stopped.

    Attributes:
        seconds: From the beginning of the stop.
        is_usual: It was not asked for: workers with a `grace` of their own get that instead.
    """

    seconds: float
    is_usual: bool = False


class RecoveryLog:
    """Small files in a project's state folder. A disk that refuses them is logged and no error.

    Args:
        folder: The state folder; it exists, and this supervisor has the project.
    """

    def __init__(self, folder: Path) -> None:
        self._incarnations = folder / "incarnations"
        self._queues = folder / "queues"
        self._stored_count = folder / "stored_count"
        self._purge = folder / "purge"
        self._stop_time = folder / "stop_timeout"
        self._supervisor = folder / "supervisor"
        self._has_warned = False

    def note_started(self, incarnation: str) -> None:
        """Record an incarnation before its process starts."""
        self._append(f"+{incarnation}\n")

    def note_released(self, incarnation: str) -> None:
        """Record that an incarnation has ended and was released."""
        self._append(f"-{incarnation}\n")

    def unreleased(self) -> list[str]:
        """Return the incarnations of earlier supervisors that were not released.

        To be called before this supervisor starts its first process.
        """
        unreleased: dict[str, None] = {}
        for line in self._read(self._incarnations).splitlines():
            if line.startswith("+"):
                unreleased[line[1:]] = None
            else:
                unreleased.pop(line[1:], None)
        with self._tolerance():
            write(self._incarnations, "".join(f"+{one}\n" for one in unreleased))
        return list(unreleased)

    def replace_supervisor(self, address: str) -> str:
        """Record this supervisor's address; returns that of the one before, or ""."""
        before = self._read(self._supervisor)
        with self._tolerance():
            write(self._supervisor, address)
        return before

    def queues(self) -> list[str]:
        """Return the names of the durable queues of the last run."""
        try:
            names = json.loads(self._read(self._queues))
        except ValueError:
            return []
        return [str(name) for name in names] if isinstance(names, list) else []

    def set_queues(self, names: Iterable[str]) -> None:
        """Record the names of the durable queues."""
        draft = self._queues.with_suffix(".new")
        with self._tolerance():
            write(draft, json.dumps(sorted(names)))
            draft.replace(self._queues)

    def set_stored_count(self, count: int) -> None:
        """Record the number of unhandled messages that stay stored."""
        with self._tolerance():
            write(self._stored_count, str(count))

    def stored_count(self) -> int:
        """Return the number of unhandled messages that were stored when the last run ended."""
        try:
            return int(self._read(self._stored_count))
        except ValueError:
            return 0

    def request_purge(self) -> None:
        """Have the supervisor purge all queues at its end, or else the next one at its start."""
        self._purge.touch()

    @property
    def is_purge_requested(self) -> bool:
        """Whether all queues are to be purged."""
        return self._purge.exists()

    def note_purged(self) -> None:
        """Record that no message is stored."""
        with self._tolerance():
            self._purge.unlink(missing_ok=True)
        self.set_stored_count(0)

    def set_stop_time(self, pid: int, time: StopTime) -> None:
        """Have the supervisor of that pid give running jobs so long when it stops."""
        with self._tolerance():
            write(self._stop_time, f"{pid} {time.seconds} {int(time.is_usual)}")

    def take_stop_time(self) -> StopTime | None:
        """Return, once, the time for running jobs that was set for this process."""
        pid, seconds, is_usual = (*self._read(self._stop_time).split(" "), "", "", "")[:3]
        with self._tolerance():
            self._stop_time.unlink(missing_ok=True)
        with contextlib.suppress(ValueError):
            if int(pid) == os.getpid():
                return StopTime(float(seconds), is_usual=is_usual == "1")
        return None

    def _append(self, line: str) -> None:
        with self._tolerance():
            write(self._incarnations, line, mode="a")

    def _read(self, path: Path) -> str:
        with self._tolerance(), contextlib.suppress(FileNotFoundError):
            return read(path).decode(errors="replace")
        return ""

    @contextlib.contextmanager
    def _tolerance(self) -> Iterator[None]:
        """Log an OSError, the first time, and go on."""
        try:
            yield
        except OSError as error:
            if not self._has_warned:
                logger.warning("the project's state cannot be written down: %s", error)
            self._has_warned = True
