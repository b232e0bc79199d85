"""The order of workers: which of them waits for which."""

from collections.abc import Iterable, Mapping


def find_cycle(waits_for: Mapping[str, Iterable[str]]) -> list[str] | None:
    """Find workers that wait for each other.

    Args:
        waits_for: The names that each name waits for; unknown names are left alone.

    Returns:
        The path of a cycle, its first name again at the end; None where there is none.
    """
    done: set[str] = set()
    for start in waits_for:
        if (cycle := _cycle_from(start, waits_for, done)) is not None:
            return cycle
    return None


def _cycle_from(
    start: str, waits_for: Mapping[str, Iterable[str]], done: set[str]
) -> list[str] | None:
    if start in done:
        return None
    path: dict[str, None] = {start: None}
    pending = [iter(waits_for[start])]
    while pending:
        name = next((one for one in pending[-1] if one in waits_for and one not in done), None)
        if name is None:
            pending.pop()
            done.add(path.popitem()[0])
        elif name in path:
            names = list(path)
            return [*names[names.index(name) :], name]
        else:
            path[name] = None
            pending.append(iter(waits_for[name]))
    return None


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
