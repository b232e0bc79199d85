"""Log lines of several workers under one another, told apart by a coloured name."""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from rich.text import Text

from pbus_cli.terminal.clean import clean, without_sequences
from pbus_cli.views import colors
from pbus_cli.views.cells import cut_name, fill, plain_text, rendered

_WIDEST_NAME: Final = 24
_RESET: Final = "\x1b[0m"  # a worker may have left a colour on


class LogEntry(Protocol):
    """A line that a worker wrote, live or from its file."""

    @property
    def worker(self) -> str:
        """The worker that wrote the line."""

    @property
    def stream(self) -> str:
        """The streams "out" and "err", or "pbus" for remarks about the worker."""

    @property
    def text(self) -> str:
        """The line without its end."""


def name_width(names: Iterable[str]) -> int:
    """The width of the column of names."""
    return min(_WIDEST_NAME, max((len(name) for name in names), default=0))


def log_prefix(name: str, width: int, stream: str) -> str:
    """The prefix of a line: its worker, and a star where pbus itself reports."""
    return f"{fill(cut_name(name, width), width)} {'*' if stream == 'pbus' else '|'} "


def log_text(entry: LogEntry, names: int, *, has_colors: bool, is_raw: bool = False) -> str:
    """One whole line for a stream, nothing cut; colours of the worker's own are left out.

    Args:
        entry: The line.
        names: The width of the column of names.
        has_colors: Colour the name.
        is_raw: The line goes to the terminal as the worker wrote it, and nothing cleans it any more.
    """
    prefix = log_prefix(entry.worker, names, entry.stream)
    if has_colors:
        prefix = rendered(prefix, colors.of_name(entry.worker))
    if is_raw:
        return clean(prefix) + entry.text + (_RESET if has_colors else "")
    return prefix + without_sequences(entry.text)


def log_line(entry: LogEntry, names: int, width: int) -> Text:
    """One line, cut to a width."""
    line = Text(no_wrap=True, end="")
    line.append(log_prefix(entry.worker, names, entry.stream), style=colors.of_name(entry.worker))
    line.append(plain_text(entry.text), style=colors.HEADING if entry.stream == "pbus" else "")
    line.truncate(width, overflow="ellipsis")
    return line


def log_lines(entries: Sequence[LogEntry], width: int, height: int) -> list[Text]:
    """The newest lines that fit, oldest first."""
    if height <= 0:
        return []
    names = name_width(entry.worker for entry in entries)
    return [log_line(entry, names, width) for entry in entries[-height:]]
