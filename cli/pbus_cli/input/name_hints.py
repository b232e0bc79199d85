"""Texts that several verbs use: unknown names with the nearest known one, and counts."""

from pbus.errors import UnknownNameError


def unknown_text(error: UnknownNameError) -> str:
    """A sentence that a name is unknown, with the nearest known one."""
    return f"{error.message}; {error.hint}"


def kept_text(count: int) -> str:
    """The number of messages that wait for the next run, as a sentence."""
    return "1 unhandled message is kept" if count == 1 else f"{count:,} unhandled messages are kept"
