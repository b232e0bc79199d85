"""Texts that several verbs use: unknown names with the nearest known one, and counts."""

from collections.abc import Iterable

from pbus.names import nearest_name, with_groups


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """A sentence that a name is unknown, with the nearest known one."""
    near = nearest_name(name, known)
    if near is not None:
        return f"there is no {what} {name!r}; did you mean {near!r}?"
    return (
        f"there is no {what} {name!r}; there are: {', '.join(sorted(with_groups(known))) or 'none'}"
    )


def kept_text(count: int) -> str:
    """The number of messages that wait for the next run, as a sentence."""
    return "1 unhandled message is kept" if count == 1 else f"{count:,} unhandled messages are kept"
