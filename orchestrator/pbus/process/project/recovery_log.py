"""What a supervisor leaves to the next one of its project, however it ends.

Under which address it spoke, and which lives it began and did not bury: both are over when the next
one has the project. And whose mail it keeps: of those that are in the file no longer, the mail goes.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


class RecoveryLog:
    """Small files in a project's state folder. A disk that refuses them stops nobody: it is logged.

    Args:
        folder: Made already, and held by this supervisor.
    """

    def __init__(self, folder: Path) -> None:
        self._lives = folder / "lives"
        self._mailboxes = folder / "mailboxes"
        self._kept = folder / "kept"
        self._purge = folder / "purge"
        self._given = folder / "given"
        self._supervisor = folder / "supervisor"
        self._complained = False

    def begin(self, incarnation: str) -> None:
        """A life is about to begin."""
        self._append(f"+{incarnation}\n")

    def end(self, incarnation: str) -> None:
        """A life is over, and everybody knows."""
        self._append(f"-{incarnation}\n")

    def inherited(self) -> list[str]:
        """Lives that nobody buried; those of earlier supervisors, if asked before any begins."""
        open_lives: dict[str, None] = {}
        for line in self._read(self._lives).splitlines():
            if line.startswith("+"):
                open_lives[line[1:]] = None
            else:
                open_lives.pop(line[1:], None)
        with self._tolerance():
            self._lives.write_text("".join(f"+{incarnation}\n" for incarnation in open_lives))
        return list(open_lives)

    def succeed(self, address: str) -> str:
        """A supervisor of this address begins; returns that of the one before, "" for none."""
        before = self._read(self._supervisor)
        with self._tolerance():
            self._supervisor.write_text(address)
        return before

    def mailboxes(self) -> list[str]:
        """Whose mail was kept at last."""
        try:
            names = json.loads(self._read(self._mailboxes))
        except ValueError:
            return []
        return [str(name) for name in names] if isinstance(names, list) else []

    def keep_mailboxes(self, names: Iterable[str]) -> None:
        """From now on the mail of these is kept."""
        draft = self._mailboxes.with_suffix(".new")
        with self._tolerance():
            draft.write_text(json.dumps(sorted(names)))
            draft.replace(self._mailboxes)

    def note_kept(self, count: int) -> None:
        """So many unhandled messages are kept while nothing runs."""
        with self._tolerance():
            self._kept.write_text(str(count))

    def kept(self) -> int:
        """How many unhandled messages were kept when the last run ended."""
        try:
            return int(self._read(self._kept))
        except ValueError:
            return 0

    def ask_for_purge(self) -> None:
        """Have the supervisor drop all mail at its end; else the next one at its beginning."""
        self._purge.touch()

    @property
    def is_purge_asked(self) -> bool:
        """Whether all mail is to be dropped."""
        return self._purge.exists()

    def note_purged(self) -> None:
        """All mail was dropped."""
        with self._tolerance():
            self._purge.unlink(missing_ok=True)
        self.note_kept(0)

    def give(self, pid: int, timeout_s: float) -> None:
        """Have the supervisor of that pid give jobs in hand so many seconds when it stops."""
        with self._tolerance():
            self._given.write_text(f"{pid} {timeout_s}")

    def given_s(self) -> float | None:
        """The seconds that jobs in hand get now that this process stops, if told; asked once."""
        pid, _, seconds = self._read(self._given).partition(" ")
        with self._tolerance():
            self._given.unlink(missing_ok=True)
        with contextlib.suppress(ValueError):
            if int(pid) == os.getpid():
                return float(seconds)
        return None

    def _append(self, line: str) -> None:
        with self._tolerance(), self._lives.open("a") as file:
            file.write(line)

    def _read(self, path: Path) -> str:
        with self._tolerance(), contextlib.suppress(FileNotFoundError):
            return path.read_text(errors="replace")
        return ""

    @contextlib.contextmanager
    def _tolerance(self) -> Iterator[None]:
        """Go on without the file; the first time that is said."""
        try:
            yield
        except OSError as error:
            if not self._complained:
                logger.warning("the project's state cannot be written down: %s", error)
            self._complained = True
