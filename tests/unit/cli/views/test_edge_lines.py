"""The tables of edges and jobs: what is told of each, at every width."""

import pytest

from pbus.client.traffic.edge_stats import EdgeStats, JobStats, Quantiles
from pbus_cli.views.tables.edge_lines import edge_lines, job_stat_lines, rate_text, time_text
from support.screens import SIZES, widest


def edge(source="stt", target="llm", **changes):
    values = {
        "source": source, "target": target, "type": "Transcript", "rate": 12.3, "bytes_rate": 4e3,
        "sent": 12_345, "bytes": 3_000_000, "handled": 12_340, "errors": 0, "lost": 0,
        "undelivered": 0, "wait_s": Quantiles(0.0003, 0.002, 1.5), "handling_s": None,
    }  # fmt: skip
    return EdgeStats(**(values | changes))


def plain(lines):
    return [line.plain.rstrip() for line in lines]


def test_an_edge_is_one_line():
    """Rate, counts, times and trouble, each under its heading."""
    heading, line = plain(edge_lines([edge(errors=3, undelivered=12_345)]))

    assert "SOURCE TARGET TYPE RATE MESSAGES BYTES" == " ".join(heading.split()[:6])
    assert "stt llm Transcript 12/s 12.3k 2.9 MB 300us 2.0ms 1.5s - 3 - 12.3k" == " ".join(
        line.split()
    )


def test_messages_of_clients_are_those_handled():
    """Clients count nothing; lost messages have no known type."""
    _, line = plain(edge_lines([edge("cli-*", sent=0, handled=9, type="", wait_s=None)]))

    assert ["cli-*", "llm", "?", "12/s", "9"] == line.split()[:5]


def test_jobs_follow_the_messages():
    """What was not completed is told by its outcome."""
    job = JobStats(
        requester="main", worker="stt", name="load",
        outcomes={"completed": 4, "timeout": 1_000, "lost": 0}, latency_s=Quantiles(1.0, 2.0, 3.0),
    )  # fmt: skip
    empty, heading, line = plain(job_stat_lines([job]))

    assert ("", "REQUESTER") == (empty, heading.split()[0])
    assert "main stt load 4 1.0s 2.0s 3.0s 1,000 timeout" == " ".join(line.split())


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_no_line_is_wider_than_the_screen(width, height):
    """Where not all fits the figures of trouble stay longest."""
    del height
    long = [edge("s" * 40, "t" * 40, type="T" * 90, errors=7), edge("\x1b[2Jevil\n")]
    job = JobStats(requester="r" * 60, worker="w" * 60, name="n" * 60, outcomes={}, latency_s=None)

    assert widest(edge_lines(long, width)) <= width
    assert widest(job_stat_lines([job], width)) <= width
    assert not any("\x1b" in line or "\n" in line for line in plain(edge_lines(long)))


def test_nothing_has_no_heading():
    """An empty table is no table."""
    assert ([], []) == (edge_lines([]), job_stat_lines([]))


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "-"), (0.04, "0.04/s"), (1.26, "1.3/s"), (99.6, "100/s"), (12_345.0, "12.3k/s")],
)
def test_rates_have_two_digits(rate, text):
    """Small ones are not rounded to nothing."""
    assert text == rate_text(rate)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0us"), (4.5e-5, "45us"), (1.2e-3, "1.2ms"), (0.9996, "1.0s"), (75, "75.0s")],
)
def test_times_have_a_unit(seconds, text):
    """As short as a cell of the table."""
    assert text == time_text(seconds)
