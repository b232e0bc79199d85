"""Figures as people read them."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.process.project.log_files import stamp
from pbus_cli.views.endings import Ending, ending_lines, exit_text
from pbus_cli.views.figures import (
    clock_time,
    short_bytes,
    short_count,
    short_duration,
    short_percent,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"), (0, "0 B"), (1023, "1023 B"), (4096, "4.0 KB"), (40 * 1024**2, "40 MB"),
        (3 * 1024**3, "3.0 GB"), (5 * 1024**4, "5.0 TB"),
    ],
)  # fmt: skip
def test_bytes_with_units(count: int | None, text: str) -> None:
    """One decimal below ten, none above."""
    assert text == short_bytes(count)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (9_999, "9,999"), (12_345, "12.3k"), (999_999, "1.0M"), (4_600_000, "4.6M")],
)
def test_counts_stay_short(count: int, text: str) -> None:
    """Never more than six characters."""
    assert text == short_count(count)
    assert len(text) <= 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0s"), (59.9, "59s"), (187, "3m07s"), (7_500, "2h05m"), (352_800, "4d02h")],
)
def test_durations_stay_short(seconds: float | None, text: str) -> None:
    """The two largest units."""
    assert text == short_duration(seconds)


@pytest.mark.parametrize(
    ("percent", "text"), [(None, "-"), (0.04, "0.0%"), (9.4, "9.4%"), (97.3, "97%")]
)
def test_percent_of_core(percent: float | None, text: str) -> None:
    """Idle workers are told apart, busy ones rounded."""
    assert text == short_percent(percent)


@pytest.mark.parametrize(
    ("code", "text"),
    [(None, "never ran"), (0, "exited with code 0"), (-9, "was killed by SIGKILL")],
)
def test_exits_in_words(code: int | None, text: str) -> None:
    """A signal has its name."""
    assert text == exit_text(code)


@pytest.mark.parametrize(
    "show", [clock_time, short_bytes, short_count, short_duration, short_percent]
)
@given(st.one_of(st.floats(), st.integers(-(1 << 70), 1 << 70), st.just(1.8e18)))
def test_any_figure_can_be_shown(show: Callable[[float], str], figure: float) -> None:
    """Figures come from whatever is on the channel: each has a short text, none is an error."""
    if show is short_count:
        figure = int(figure) if math.isfinite(figure) else 0

    assert 0 < len(show(figure)) < 30


def ending(name: str, **changes: object) -> Ending:
    """How a worker ended; well unless said otherwise."""
    values: dict[str, object] = {
        "name": name, "state": "exited", "exit_code": 0, "restarts": 0,
        "received": 1, "sent": 2, "lost": 0,
    }  # fmt: skip
    return Ending(**(values | changes))


def test_endings_name_errors() -> None:
    """The last word of a failed worker stays on the terminal."""
    failed = ending("b", state="failed", exit_code=1, error="ValueError: no")
    lines = [line.plain for line in ending_lines([ending("a"), failed], 100)]

    assert "ValueError: no" in lines[2]
    assert "failed, exited with code 1" in lines[2]


def test_many_endings_are_counted() -> None:
    """Hundreds that ended well are one line; the others are named."""
    crowd = [ending(f"w.{number}") for number in range(300)]
    lines = [line.plain for line in ending_lines([*crowd, ending("x", lost=3)], 80)]

    assert len(lines) == 3
    assert lines[1].startswith("x ")
    assert lines[2] == "… 300 more ended without trouble"


@pytest.mark.parametrize("second", [0, 1_700_000_000, 1_764_000_000, 4_000_000_000])
def test_times_are_those_of_the_log_files(second: int) -> None:
    """A line is shown to the millisecond that its log file has, live as well as read from there."""
    for millis in range(0, 1000, 7):
        for rest in (0.0, 0.0004, 0.0006):
            time = second + millis / 1000 + rest
            assert stamp(time)[16:-1] == clock_time(time)[5:]  # seconds: zones differ by minutes


def test_the_last_millisecond_is_rounded_up() -> None:
    """To the next second, not to .1000."""
    assert clock_time(1_700_000_000.9996) == clock_time(1_700_000_001.0)
