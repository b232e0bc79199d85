"""Words that several verbs use: names that somebody typed, what they match and perhaps mean."""

import difflib
from collections.abc import Iterable


def is_meant(name: str, worker: str) -> bool:
    """Whether a worker is the one named, or a replica of it."""
    return worker == name or worker.startswith(f"{name}.")


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Says that a name is unknown, and which one was perhaps meant."""
    near = near_name(name, known)
    if near is not None:
        return f"there is no {what} {name!r}; did you mean {near!r}?"
    return f"there is no {what} {name!r}; there are: {', '.join(_with_groups(known)) or 'none'}"


def near_name(name: str, known: Iterable[str]) -> str | None:
    """The name that was perhaps meant."""
    return next(iter(difflib.get_close_matches(name, _with_groups(known), n=1)), None)


def _with_groups(known: Iterable[str]) -> list[str]:
    names = set(known)
    return sorted(names | {one.rpartition(".")[0] for one in names if "." in one})


def kept_text(count: int) -> str:
    """How many messages wait for the next run."""
    return "1 unhandled message is kept" if count == 1 else f"{count:,} unhandled messages are kept"
