"""Figures as people read them on a screen: short, of one width, without false precision."""

import time
from typing import Final

_UNKNOWN: Final = "?"  # a figure that cannot be meant
_LONGEST_S: Final = 1e11  # some 3,000 years; times come from others' clocks, and from anybody
_LARGEST: Final = 1 << 63
_KIB: Final = 1024
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
_FEW: Final = 10  # below it a decimal says something, above it is noise


def short_bytes(count: float | None) -> str:
    """Bytes with a unit: 312 B, 4.0 KB, 38 MB."""
    if count is None:
        return "-"
    if not abs(count) < _LARGEST:
        return _UNKNOWN
    if count < _KIB:
        return f"{count:.0f} B"
    units = iter(("KB", "MB", "GB", "TB", "PB", "EB"))
    unit = "B"
    while count >= _KIB:
        count /= _KIB
        unit = next(units)
    return f"{count:.1f} {unit}" if count < _FEW else f"{count:.0f} {unit}"


def short_count(count: int) -> str:
    """A count in at most six characters: 9,999, 12.3k, 4.6M."""
    if abs(count) >= _LARGEST:
        return _UNKNOWN
    if count < 10_000:  # noqa: PLR2004 - the last that fits with its comma
        return f"{count:,}"
    size, unit = float(count), ""
    units = iter("kMGTPE")
    while size >= 999.95:  # noqa: PLR2004 - what would be rounded to four digits
        size /= 1000
        unit = next(units)
    return f"{size:.1f}{unit}"


def short_duration(seconds: float | None) -> str:
    """A duration: 42s, 3m07s, 2h05m, 4d02h."""
    if seconds is None:
        return "-"
    if not abs(seconds) < _LONGEST_S:
        return _UNKNOWN
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"


def short_percent(percent: float | None) -> str:
    """A share of one core: 0.4%, 97%."""
    if percent is None:
        return "-"
    if not abs(percent) < _LARGEST:
        return _UNKNOWN
    return f"{percent:.1f}%" if percent < _FEW else f"{percent:.0f}%"


def clock_time(seconds: float) -> str:
    """The local time of day with milliseconds; "?" for no time of this world."""
    if not abs(seconds) < _LONGEST_S:
        return _UNKNOWN.rjust(len("00:00:00.000"))
    whole, millis = divmod(round(seconds * 1000), 1000)  # as in log files, which are read again
    return f"{time.strftime('%H:%M:%S', time.localtime(whole))}.{millis:03}"
