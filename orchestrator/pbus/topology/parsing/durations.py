"""Durations as a topology file writes them."""

import re

DURATION_PATTERN = (
    r"^(?:[0-9]{1,9}(?:\.[0-9]{1,6})? ?(?:ms|s|m|h|d) ?){1,5}$|^[0-9]{1,9}(?:\.[0-9]{1,6})?$"
)
EXPECTED_DURATION = "a duration like 500ms, 30s, 5m or 1h30m, or a number of seconds"
EXPECTED_AGE = "a duration of at least 1s like 30m, 6h or 1d, or a number of seconds"
EXPECTED_SILENCE = "a duration of at least 3s like 10s or 1m, or a number of seconds"

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, None: 1}
_MOST = 366 * 86400.0
_LEAST_AGE_S = 1.0
_LEAST_SILENCE_S = 3.0  # a heartbeat comes every 2 s


def parse_duration(text: str) -> float | None:
    """Seconds of a duration; its parts add up.

    Returns:
        None where the text is no duration, or one of more than a year.
    """
    if re.fullmatch(DURATION_PATTERN, text) is None:
        return None
    seconds = sum(float(number) * _SECONDS[unit or None] for number, unit in _PART.findall(text))
    return seconds if seconds <= _MOST else None


def parse_age(text: str) -> float | None:
    """Seconds of a duration that is long enough for a process to do something; else None."""
    seconds = parse_duration(text)
    return None if seconds is None or seconds < _LEAST_AGE_S else seconds


def parse_silence(text: str) -> float | None:
    """Seconds of a duration in which a heartbeat comes for certain; else None."""
    seconds = parse_duration(text)
    return None if seconds is None or seconds < _LEAST_SILENCE_S else seconds
