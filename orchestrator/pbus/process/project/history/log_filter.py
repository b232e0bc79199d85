"""Selection of kept lines by time, run and text."""

import collections
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

T = TypeVar("T")


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions that all have to hold.

    Attributes:
        since: Unix seconds; a line of this very time is taken.
        until: Unix seconds; a line of this very time is not.
        pattern: Is found in the text.
        run: The number of the run.
    """

    since: float | None = None
    until: float | None = None
    pattern: re.Pattern[str] | None = None
    run: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether every line is taken."""
        return self == LogFilter()

    def takes(self, at: float, text: str, run: int | None) -> bool:
        """Whether a line is taken.

        Args:
            at: Unix seconds.
            text: Of the line.
            run: The number of the run that it is of; None where that is not kept.
        """
        if self.since is not None and at < self.since:
            return False
        if self.until is not None and at >= self.until:
            return False
        if self.run is not None and run != self.run:
            return False
        return self.pattern is None or self.pattern.search(text) is not None


def newest(items: Iterable[T], count: int | None) -> Iterator[T]:
    """Yield the last of these, all where there is no count."""
    return iter(items if count is None else collections.deque(items, maxlen=count))
