"""Rates over time in one line of characters."""

from collections.abc import Sequence
from typing import Final

_LEVELS: Final = "▁▂▃▄▅▆▇█"


def sparkline(rates: Sequence[float], width: int) -> str:
    """The newest rates, scaled to the highest of them: a blank for none, a low bar for any at all.

    Args:
        rates: Oldest first.
        width: Characters; where there are fewer rates the line begins with blanks.
    """
    shown = rates[-width:] if width > 0 else ()
    highest = max(shown, default=0.0)
    steps = len(_LEVELS) - 1
    marks = [_LEVELS[round(rate / highest * steps)] if rate > 0 else " " for rate in shown]
    return "".join(marks).rjust(max(0, width))


def bar(share: float, width: int) -> str:
    """A share between 0 and 1 as a bar; others are cut to that."""
    full = round(min(1.0, max(0.0, share)) * width)
    return "▰" * full + "▱" * (width - full)
