"""The table of a benchmark: fits, aligns, and does not hide a loss."""

import pytest

from pbus.bench import Check, Environment, Report, Row
from pbus_cli.views.tables.bench_table import report_lines, short_figure

ENVIRONMENT = Environment(
    python="3.11.7", system="Linux x86_64", cpus=2, load=0.25, broker="embedded Valkey"
)
ROWS = (
    Row(
        name="throughput",
        count=400_000,
        messages_per_s=225_960.2,
        megabytes_per_s=57.8,
        p50_ms=1.5,
        p90_ms=2.5,
        p99_ms=12.34,
        sender_cpu_us=5.118,
        receiver_cpu_us=4.58,
    ),
    Row(name="throughput", system="redis-py", count=400_000, messages_per_s=77_422.1, lost=3),
)
CHECKS = (
    Check.of("throughput / redis-py", 2.9, at_least=2.5),
    Check.of("rtt p50 / redis-py", 1.5, at_most=1.3),
)
REPORT = Report(environment=ENVIRONMENT, rows=ROWS, checks=CHECKS)


def test_report_shows_both_tables() -> None:
    """Where, what was measured, and whether it is enough."""
    text = [line.plain.rstrip() for line in report_lines(REPORT)]

    assert "Linux x86_64, 2 cores, load 0.25, Python 3.11.7, asyncio, embedded Valkey" == text[0]
    assert text[3].split() == [
        *("throughput", "pbus", "400.0k", "226.0k", "57.8", "1.50", "2.50", "12.3", "5.12"),
        *("4.58", "0"),
    ]
    assert text[-2].split() == ["throughput", "/", "redis-py", "2.90", "≥", "2.50", "yes"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_too_wide(width: int) -> None:
    """Columns are left out, least important first, before anything wraps."""
    lines = report_lines(REPORT, width)

    assert max(line.cell_len for line in lines[1:]) <= width
    assert any("LOST" in line.plain for line in lines)


def test_copies_have_their_column() -> None:
    """What came twice is shown, and only then."""
    twice = Row(name="durable", count=10, duplicates=3)
    report = Report(environment=ENVIRONMENT, rows=(*ROWS, twice), checks=())
    text = [line.plain for line in report_lines(report)]

    assert "TWICE" in text[2]
    assert "3" == text[-1].split()[-1]
    assert not any("TWICE" in line.plain for line in report_lines(REPORT))


def test_what_is_missing_is_said() -> None:
    """Below the tables, a line each; a whole run says nothing."""
    missing = ("arq: it is not there", "dramatiq: neither")
    report = Report(environment=ENVIRONMENT, rows=ROWS, checks=CHECKS, not_measured=missing)
    text = [line.plain.rstrip() for line in report_lines(report, 80)]

    assert [f"not measured: {one}" for one in missing] == text[-2:]
    assert not any("not measured" in line.plain for line in report_lines(REPORT))


def test_unmet_check_is_red() -> None:
    """What is not good enough looks different."""
    styles = {str(span.style) for span in report_lines(REPORT)[-1].spans}

    assert "bold red" in styles


def test_bounds_are_judged_in_words() -> None:
    """A file or a pipe shows no colours; a figure without bounds is not judged."""
    checks = (*CHECKS, Check.of("rtt p99", 3.0, unit="ms"))
    text = report_lines(Report(environment=ENVIRONMENT, rows=(), checks=checks))
    words = [line.plain.split() for line in text[-4:]]

    assert ["CHECK", "MEASURED", "WANTED", "MET"] == words[0]
    assert ["yes", "no", "-"] == [line[-1] for line in words[1:]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.358, "0.36"),
        (35.44, "35.4"),
        (1234.5, "1,234"),
        (200000, "200,000"),
    ],
)
def test_figures_are_short(value: float | None, expected: str) -> None:
    """About three digits, a dash for nothing."""
    assert expected == short_figure(value)
