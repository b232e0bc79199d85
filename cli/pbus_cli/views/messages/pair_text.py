"""Requests with their answers: one line each, the time between before the bodies."""

from typing import Final

from pbus_cli.views import colors
from pbus_cli.views.traffic import Passed, Widths, body_text, cells_text, traffic_cells

_TIME_WIDTH: Final = 9
_SAID_ALREADY: Final = frozenset({"deadline", "window", "status", "events"})
_BAD: Final = frozenset({"error", "failed", "cancelled"})


def pair_text(
    request: Passed,
    answer: Passed | None,
    status: str | None,
    widths: Widths,
    *,
    width: int | None = None,
    has_colors: bool = False,
) -> str:
    """One pair on one line: that of the request, then time, status, and both bodies.

    Args:
        request: The request.
        answer: None where none has come.
        status: Of a job.
        widths: Of the columns.
        width: Cells of the line; None for no limit.
        has_colors: Whether the stream shows colours.
    """
    *head, _ = traffic_cells(request, widths)
    seconds = None if answer is None else max(0.0, answer.time - request.time)
    style = colors.ERROR if status in _BAD or answer is None else ""
    cells = [
        *head,
        (f"{between_text(seconds):>{_TIME_WIDTH}}  ", style),
        (f"{status}  " if status else "", style),
        (_body_text(request), ""),
    ]
    if answer is not None:
        cells += [(" ⇒ ", colors.HEADING), (_body_text(answer), "")]
    return cells_text(cells, width=width, has_colors=has_colors)


def _body_text(message: Passed) -> str:
    return body_text(message.body, _SAID_ALREADY) if message.has_body else ""


def between_text(seconds: float | None) -> str:
    """The time between request and answer: 0.41 ms, 23.5 ms, 1.35 s, 128 s."""
    if seconds is None:
        return "no answer"
    millis = seconds * 1000
    if millis < 10:  # noqa: PLR2004 - two decimals say something below it
        return f"{millis:.2f} ms"
    if millis < 1000:  # noqa: PLR2004 - a second
        return f"{millis:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"  # noqa: PLR2004 - likewise
