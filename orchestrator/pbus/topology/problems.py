"""The problems of a topology: collected line by line, raised together."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pbus.errors import TopologyError

_LINES_A_FILE = 1 << 21  # more than a file of the largest size can have
_SIMPLE_KEY = re.compile(r"[\w-]{1,64}")
_SHOWN_LENGTH = 48
_COMPARED_LENGTH = 64  # comparing takes time that grows with the square


class Place(NamedTuple):
    """A place in a file: the line of a key, and the path of keys to it.

    Lines are numbered over all files of a load, see `Problems.open`.
    """

    line: int
    path: str

    def key(self, key: str, line: int) -> "Place":
        """The place of a key of the mapping at this place."""
        shown = key if _SIMPLE_KEY.fullmatch(key) else shorten(shown_key(key))
        return Place(line, f"{self.path}.{shown}" if self.path else shown)

    def item(self, index: int, line: int) -> "Place":
        """The place of an item of the list at this place."""
        return Place(line, f"{self.path}[{index}]")


class Problems:
    """Collects the problems of one load; raised in the order of the files and their lines.

    The files of a load share one numbering of lines, as positions do in a compiler: a line tells
    the file, too.

    Args:
        file: The first file; its lines count from 1.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._files = [file]
        self._found: dict[tuple[bool, int, str], None] = {}  # in order, each once

    def emptied(self) -> "Problems":
        """Problems of the same files, none found yet."""
        other = Problems(self.file)
        other._files = list(self._files)
        return other

    @property
    def count(self) -> int:
        """The number of problems found so far."""
        return len(self._found)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was opened, in that order."""
        return tuple(self._files)

    def open(self, file: Path) -> int:
        """Add a file; returns the number to be added to each of its lines, 0 for the first."""
        if file == self.file:
            return 0
        self._files.append(file)
        return (len(self._files) - 1) * _LINES_A_FILE

    def source(self, line: int) -> tuple[Path, int]:
        """The file of a line, and its number there."""
        return self._files[line // _LINES_A_FILE], line % _LINES_A_FILE

    def shown(self, line: int, *, beside: int) -> str:
        """A line as the problem of another line names it: with the file, where that differs."""
        file, number = self.source(line)
        return f"line {number}" if file == self.source(beside)[0] else f"{file}:{number}"

    def add(self, place: Place, text: str, *, file: Path | None = None) -> None:
        """Add a problem.

        Args:
            place: Its line and key.
            text: The problem.
            file: Another file than a topology, if it is there; then `place` has its line.
        """
        of_line, number = self.source(place.line)
        where = f"{file or of_line}:{number}: "
        path = f"{place.path}: " if place.path else ""
        self._found[file is not None, place.line, where + path + text] = None

    def add_file(self, text: str, *, file: Path | None = None) -> None:
        """Add a problem of a whole file, by default the first, without a line."""
        self._found[False, 0, f"{file or self.file}: {text}"] = None

    def raise_if_any(self) -> None:
        """Raise the problems, if there are any.

        Raises:
            TopologyError: With every problem, those of other files last.
        """
        if self._found:
            raise self.error()

    def error(self) -> TopologyError:
        """All problems as one error, for callers that cannot read on."""
        found = sorted(self._found, key=lambda problem: problem[:2])
        return TopologyError(self.file, [text for _, _, text in found])


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """A bracketed suggestion of the nearest valid name, or nothing where none is near."""
    by_lower = {name.lower(): name for name in valid}
    near = difflib.get_close_matches(wrong[:_COMPARED_LENGTH].lower(), by_lower, n=1, cutoff=0.6)
    return suggestion(by_lower[near[0]]) if near else ""


def suggestion(right: str) -> str:
    """A suggestion as the end of a problem."""
    return f" (did you mean `{right}`?)"


def shown_key(key: str) -> str:
    """The key as it may be shown; a slip like `{PASSWORD=secret}` makes a secret a key."""
    slip = re.match(r"([^=:]*[=:]).+", key, re.DOTALL)
    return f"{slip[1]}***" if slip else key


def shorten(text: str) -> str:
    """The text quoted for one line of output: escaped, and cut if it is long."""
    return repr(text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…")


def one_of(words: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
