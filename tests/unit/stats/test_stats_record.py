"""The record of a process: cumulative over its incarnations, with rates, within its bound."""

import msgspec
import pytest

from pbus.errors import MessageDecodeError
from pbus.stats.edge_table import OTHER, EdgeTable
from pbus.stats.histogram import TOP_INDEX, Histogram
from pbus.stats.stats_record import (
    MAX_STATS_BYTES,
    EdgeCounts,
    JobCounts,
    StatsRecord,
    StatsReports,
    decode_stats,
    encode_stats,
)


def table(sent=10, handled=7):
    """One edge with counts."""
    edges = EdgeTable()
    edge = edges.edge("a", "b", "Note")
    edge.sent += sent
    edge.sent_bytes += 100 * sent
    edge.lost, edge.errors, edge.undelivered = 1, 2, 3
    for number in range(handled):
        edge.handled += 1
        edge.sample(0.0, float(number), number + 0.01)
    edges.job_edge("a", "b", "find").note("completed", 0.5, 4)
    return edges


def only(record):
    (edge,) = record.edges
    return edge


def test_a_record_arrives_as_it_was():
    """Encoded and decoded it is the same."""
    record = StatsReports(table(), "one", "session").next_record(1.0)

    assert record == decode_stats(encode_stats(record))
    assert (10, 1000, 3, 1, 7, 2) == msgspec.structs.astuple(only(record))[3:9]
    assert {"completed": 4} == record.jobs[0].outcomes


def test_rates_are_ratios_of_counts():
    """A known load, by a clock of the test: within 2 % at any time, exact here."""
    edges, now = table(sent=0, handled=0), 100.0
    reports = StatsReports(edges, "one", None)
    edge = edges.edge("a", "b", "Note")
    for _ in range(12):
        record = reports.next_record(now)
        now += 2.0
        edge.sent += 500  # 250 a second
        edge.sent_bytes += 128_000
        edge.handled += 400
    counts = only(reports.next_record(now))

    assert 250.0 == only(record).recent_sent / record.window_s
    assert 200.0 == only(record).recent_handled / record.window_s
    assert 64_000.0 == counts.recent_bytes / 10.0


def test_rates_end_with_the_load():
    """The window moves on; the records of an idle process are equal, and need not be stored."""
    edges = table()
    reports = StatsReports(edges, "one", None)
    reports.next_record(0.0)
    edges.edge("a", "b", "Note").sent += 5
    bodies = [encode_stats(reports.next_record(2.0 * number)) for number in range(1, 9)]

    assert 5 == only(decode_stats(bodies[0])).recent_sent
    assert 0 == only(decode_stats(bodies[-1])).recent_sent
    assert bodies[-1] == bodies[-2]
    assert 0.0 == decode_stats(bodies[-1]).window_s


def test_counts_go_on_after_a_restart():
    """The next incarnation adds to the record, histograms and jobs included; not to its rates."""
    before = StatsReports(table(), "one", "session").next_record(1.0)
    edges = table(sent=1, handled=1)
    reports = StatsReports(edges, "two", "session")
    reports.restore(decode_stats(encode_stats(before)))
    record = reports.next_record(2.0)

    counts = only(record)
    assert (11, 1100, 8, 8) == (counts.sent, counts.sent_bytes, counts.handled, counts.wait.count)
    assert (0, "two") == (counts.recent_sent, record.incarnation)
    assert ({"completed": 8}, 8) == (record.jobs[0].outcomes, record.jobs[0].latency.count)


@pytest.mark.parametrize(
    ("incarnation", "session"), [("one", "another"), ("two", "session")], ids=["session", "own"]
)
def test_other_runs_are_left_out(incarnation, session):
    """Another `up` begins at 0, and a process does not count its own record twice."""
    before = StatsReports(table(), incarnation, session).next_record(1.0)
    reports = StatsReports(EdgeTable(), "two", "session")
    reports.restore(before)

    assert [] == reports.next_record(2.0).edges


def test_large_records_are_folded():
    """The least used edges count together; the sums stay, and the most used one is told."""
    buckets = dict.fromkeys(range(TOP_INDEX), 1000000000)
    edges = [
        EdgeCounts(
            source=f"source-{number}", target="b", type="T" * 60, sent=number,
            wait=Histogram(dict(buckets)), handling=Histogram(dict(buckets)),
        )
        for number in range(256)
    ]  # fmt: skip
    jobs = [
        JobCounts(requester=f"r{number}", worker="b", name="n", outcomes={"completed": number},
                  latency=Histogram(dict(buckets)))
        for number in range(256)
    ]  # fmt: skip
    record = StatsRecord(incarnation="one", session=None, edges=edges, jobs=jobs)
    body = encode_stats(record)
    found = decode_stats(body)

    assert len(body) <= MAX_STATS_BYTES
    assert sum(range(256)) == sum(edge.sent for edge in found.edges)
    assert sum(range(256)) == sum(job.outcomes["completed"] for job in found.jobs)
    assert "source-255" in {edge.source for edge in found.edges}
    assert 1 == sum(edge.source == OTHER for edge in found.edges)
    assert 256 == len(record.edges)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"{}", msgspec.msgpack.encode({"incarnation": 7, "session": None})],
)
def test_other_bytes_are_no_record(body):
    """Other programs may write anything there."""
    with pytest.raises(MessageDecodeError, match="no record of edges"):
        decode_stats(body)


@pytest.mark.parametrize("buckets", [{-1: 1}, {10_000_000: 1}, {3: -5}])
def test_other_buckets_are_no_record(buckets):
    """A bucket that pbus does not have would break whatever is computed from it."""
    edge = EdgeCounts(source="a", target="b", type="c", wait=Histogram(buckets))
    body = msgspec.msgpack.encode(StatsRecord(incarnation="i", session=None, edges=[edge]))
    with pytest.raises(MessageDecodeError, match="other buckets"):
        decode_stats(body)
