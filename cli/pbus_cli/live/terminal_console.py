"""A rich console for the terminal, through which no foreign control character passes."""

import io
import sys
from collections.abc import Iterable
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from pbus_cli.live.printer import Write, stream_writer
from pbus_cli.terminal.clean import clean
from pbus_cli.terminal.console import has_colors, is_unicode

_PLAINER: Final = str.maketrans("─…→←•", "-.><*")  # where the encoding has nothing better


class CleanConsole(Console):
    """A rich console that writes no control character but its own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments, their texts cleaned."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield segment._replace(text=clean(segment.text))


def terminal_console(write: Write | None = None) -> Console:
    """A rich console for stdout whose writes hold no lock of sys.stdout.

    Args:
        write: Takes what would go to stdout.
    """
    terminal = _Terminal(write)
    return CleanConsole(file=terminal, no_color=not has_colors(sys.stdout), highlight=False)


class _Terminal(io.StringIO):
    """Gathers one frame and writes it in one go."""

    def __init__(self, write: Write | None) -> None:
        super().__init__()
        self._write = write or stream_writer(sys.stdout, errors="replace", is_clean=True)
        self._is_plain = not is_unicode(sys.stdout)

    def isatty(self) -> bool:
        """Whether rich may move the cursor."""
        return sys.stdout.isatty()

    def fileno(self) -> int:
        """The terminal."""
        return sys.stdout.fileno()

    def flush(self) -> None:
        """Write the frame."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        if text:
            self._write(text.translate(_PLAINER) if self._is_plain else text)
