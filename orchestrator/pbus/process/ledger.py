"""What a supervisor leaves to the next one of its project, however it ends.

Which lives it began and did not bury: they are over when the next one has the project. And whose
mail it keeps: of those that are in the file no longer, the mail goes.
"""

import json
from collections.abc import Iterable
from pathlib import Path


class Ledger:
    """Small files in a project's state folder.

    Args:
        folder: Made already, and held by this supervisor.
    """

    def __init__(self, folder: Path) -> None:
        self._lives = folder / "lives"
        self._mailboxes = folder / "mailboxes"
        self._kept = folder / "kept"
        self._purge = folder / "purge"

    def begin(self, incarnation: str) -> None:
        """A life is about to begin."""
        self._append(f"+{incarnation}\n")

    def end(self, incarnation: str) -> None:
        """A life is over, and everybody knows."""
        self._append(f"-{incarnation}\n")

    def inherited(self) -> list[str]:
        """Lives that nobody buried; those of earlier supervisors, if asked before any begins."""
        try:
            lines = self._lives.read_text().splitlines()
        except FileNotFoundError:
            return []
        open_lives: dict[str, None] = {}
        for line in lines:
            if line.startswith("+"):
                open_lives[line[1:]] = None
            else:
                open_lives.pop(line[1:], None)
        self._lives.write_text("".join(f"+{incarnation}\n" for incarnation in open_lives))
        return list(open_lives)

    def mailboxes(self) -> list[str]:
        """Whose mail was kept at last."""
        try:
            names = json.loads(self._mailboxes.read_text())
        except (FileNotFoundError, ValueError):
            return []
        return [str(name) for name in names] if isinstance(names, list) else []

    def keep_mailboxes(self, names: Iterable[str]) -> None:
        """From now on the mail of these is kept."""
        draft = self._mailboxes.with_suffix(".new")
        draft.write_text(json.dumps(sorted(names)))
        draft.replace(self._mailboxes)

    def note_kept(self, count: int) -> None:
        """So many unhandled messages are kept while nothing runs."""
        self._kept.write_text(str(count))

    def kept(self) -> int:
        """How many unhandled messages were kept when the last run ended."""
        try:
            return int(self._kept.read_text())
        except (FileNotFoundError, ValueError):
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
        self._purge.unlink(missing_ok=True)
        self.note_kept(0)

    def _append(self, line: str) -> None:
        with self._lives.open("a") as file:
            file.write(line)
