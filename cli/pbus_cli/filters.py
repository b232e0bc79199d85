"""Which messages `pbus tail` shows."""

import fnmatch
import re
from dataclasses import dataclass

from pbus.bus.tap import TapMessage
from pbus.messages import Category
from pbus.names import names_of
from pbus_cli.views.traffic import OWN_TYPES, category_of, short_type


@dataclass(frozen=True)
class Filter:
    """Every kind of condition given must hold; of several of one kind, one of them.

    Attributes:
        sources: Names or patterns; a replica matches the name it shares with the others too.
        types: Names or patterns, whole (BusFrameMessage) or short (Frame).
        pattern: Looked for in the message as it travelled.
    """

    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    categories: frozenset[Category] = frozenset()
    pattern: re.Pattern[bytes] | None = None

    def passes(self, item: TapMessage) -> bool:
        """Whether to show a message."""
        header = item.header
        if header.type in OWN_TYPES and not self.types:
            return False
        return (
            _is_one_of(self.sources, names_of(header.source))
            and _is_one_of(self.targets, _target_names(header.target))
            and _is_one_of(self.types, (header.type, short_type(header.type)))
            and (not self.categories or self._category(item) in self.categories)
            and (self.pattern is None or self.pattern.search(item.body) is not None)
        )

    @staticmethod
    def _category(item: TapMessage) -> Category:
        return category_of(item.header.type, is_urgent=item.lane == "s")


def _is_one_of(patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
    if not patterns:
        return True
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _target_names(target: str | None) -> tuple[str, ...]:
    """A broadcast reaches everyone, but only `*` asks for it."""
    return ("*",) if target is None else names_of(target)
