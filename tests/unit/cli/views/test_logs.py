"""Log lines of several workers: told apart, cut, and harmless to a terminal."""

import pytest

from pbus.process.supervisor_events import Line
from pbus_cli.views.cells import plain_text
from pbus_cli.views.log_lines import log_lines, log_text, name_width
from support.screens import SIZES, widest


def line(text: str, worker: str = "librarian", stream: str = "out") -> Line:
    """A line that a worker wrote."""
    return Line(worker, stream, text, 0.0)


@pytest.mark.parametrize(("width", "_"), SIZES)
def test_no_line_too_wide(width: int, _: int) -> None:
    """Long lines and long names are cut."""
    entries = [line("x" * 500), line("漢" * 300, "n" * 64), line("short")]

    assert widest(log_lines(entries, width, 10)) <= width


def test_prefix_is_aligned() -> None:
    """All lines begin in one column."""
    lines = log_lines([line("one", "a"), line("two", "indexer.2")], 80, 5)

    assert ["a         | one", "indexer.2 | two"] == [text.plain for text in lines]


def test_remarks_have_star() -> None:
    """What pbus says about a worker is not taken for the worker's own."""
    assert log_text(line("exited", "a", "pbus"), 3, has_colors=False) == "a   * exited"


def test_newest_lines_win() -> None:
    """Of more than fit, the newest stay."""
    lines = log_lines([line(str(number), "a") for number in range(9)], 80, 2)

    assert ["a | 7", "a | 8"] == [text.plain for text in lines]


@pytest.mark.parametrize(
    ("wild", "plain"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("a\rb\x08c", "abc"),
        ("a\tb", "a    b"),
        ("\x1b[2J\x1b[H", ""),
        ("progress \x1b[K50%", "progress 50%"),
        ("\x9b31mred", "31mred"),
    ],
)
def test_escapes_are_removed(wild: str, plain: str) -> None:
    """A worker cannot draw over the display."""
    assert plain == plain_text(wild)


def test_raw_lines_keep_colors() -> None:
    """Who asks for raw lines gets a worker's colours, which end with its line; others do not."""
    wild = line("\x1b[31mred", "a")
    raw = log_text(wild, 1, has_colors=True, is_raw=True)

    assert "\x1b[31mred" in raw
    assert raw.endswith("\x1b[0m")
    assert "\x1b" not in log_text(wild, 1, has_colors=True)
    assert "red" in log_text(wild, 1, has_colors=False)


def test_name_width_is_limited() -> None:
    """One long name does not push all lines away."""
    assert name_width(["a", "x" * 64]) == 24
    assert name_width([]) == 0
