"""Names that somebody typed: what they match, and what was perhaps meant."""

import difflib
from collections.abc import Iterable


def is_meant(name: str, worker: str) -> bool:
    """Whether a worker is the one named, or a replica of it."""
    return worker == name or worker.startswith(f"{name}.")


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Says that a name is unknown, and which one was perhaps meant."""
    names = sorted({*known, *(one.rpartition(".")[0] for one in known if "." in one)})
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"there is no {what} {name!r}; did you mean {near[0]!r}?"
    return f"there is no {what} {name!r}; there are: {', '.join(names) or 'none'}"
