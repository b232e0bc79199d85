"""Words that several verbs use: names that somebody typed, what they match and perhaps mean."""

from collections.abc import Iterable

from pbus.names import nearest_name, with_groups


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Says that a name is unknown, and which one was perhaps meant."""
    near = nearest_name(name, known)
    if near is not None:
        return f"there is no {what} {name!r}; did you mean {near!r}?"
    return (
        f"there is no {what} {name!r}; there are: {', '.join(sorted(with_groups(known))) or 'none'}"
    )


def kept_text(count: int) -> str:
    """How many messages wait for the next run."""
    return "1 unhandled message is kept" if count == 1 else f"{count:,} unhandled messages are kept"
