"""The order of workers: which of them waits for which."""

from collections.abc import Iterable, Mapping
from typing import Final

_MOST_CYCLES: Final = 100


def find_cycles(waits_for: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Find workers that wait for each other.

    Args:
        waits_for: The names that each name waits for; unknown names are left alone.

    Returns:
        Paths of cycles, the first name again at the end of each; without one link of each of them
        there are no others. At most 100.
    """
    done: set[str] = set()
    found: list[list[str]] = []
    for start in waits_for:
        if start not in done:
            found += _cycles_from(start, waits_for, done)
    return found[:_MOST_CYCLES]


def _cycles_from(
    start: str, waits_for: Mapping[str, Iterable[str]], done: set[str]
) -> list[list[str]]:
    """The cycles that a walk in depth from a name comes upon."""
    found: list[list[str]] = []
    path: dict[str, None] = {start: None}
    pending = [iter(waits_for[start])]
    while pending:
        name = next((one for one in pending[-1] if one in waits_for and one not in done), None)
        if name is None:
            pending.pop()
            done.add(path.popitem()[0])
        elif name not in path:
            path[name] = None
            pending.append(iter(waits_for[name]))
        elif len(found) < _MOST_CYCLES:
            names = list(path)
            found.append([*names[names.index(name) :], name])
    return found


def closure(names: Iterable[str], waits_for: Mapping[str, Iterable[str]]) -> set[str]:
    """Names with everything that they wait for, directly or not."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += waits_for.get(name, ())
    return found
