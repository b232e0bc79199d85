"""The problems of a topology: collected line by line, raised together."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pbus.errors import TopologyError

_SIMPLE_KEY = re.compile(r"[\w-]{1,64}")
_SHOWN_LENGTH = 48
_COMPARED_LENGTH = 64  # comparing takes time that grows with the square


class Place(NamedTuple):
    """A place in the file: the line of a key, and the path of keys to it."""

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
    """Collects the problems of one load; raised in the order of the file's lines."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._found: list[tuple[bool, int, str]] = []

    def add(self, place: Place, text: str, *, file: Path | None = None) -> None:
        """Add a problem.

        Args:
            place: Its line and key.
            text: The problem.
            file: Another file than the topology, if it is there.
        """
        where = f"{file or self.file}:{place.line}: "
        path = f"{place.path}: " if place.path else ""
        self._found.append((file is not None, place.line, where + path + text))

    def add_file(self, text: str) -> None:
        """Add a problem of the whole file, without a line."""
        self._found.append((False, 0, f"{self.file}: {text}"))

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
