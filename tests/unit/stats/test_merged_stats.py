"""The records of several processes make one picture: sums, rates of those that run, senders by name."""

import math
import random

import pytest

from pbus.stats.edge_table import EdgeTable
from pbus.stats.histogram import Histogram
from pbus.stats.merged_stats import UNKNOWN_SENDER, merge_stats
from pbus.stats.stats_record import (
    EdgeCounts,
    JobCounts,
    StatsRecord,
    StatsReports,
    encode_stats,
)


def record(incarnation, *edges, jobs=(), window_s=10.0):
    return encode_stats(
        StatsRecord(
            incarnation=incarnation, session=None, window_s=window_s, edges=list(edges),
            jobs=list(jobs),
        )
    )  # fmt: skip


def edge(source="a", target="b", kind="Note", **fields):
    return EdgeCounts(source=source, target=target, type=kind, **fields)


def times(*seconds):
    histogram = Histogram()
    for one in seconds:
        histogram.record(one)
    return histogram


def merged(bodies, alive=("i-a", "i-b")):
    return merge_stats(bodies, set(alive).__contains__)


def test_both_ends_make_one_edge():
    """The sender knows what it sent, the receiver how long that took."""
    bodies = {
        "a": record("i-a", edge(sent=50, sent_bytes=5_000, recent_sent=20, recent_bytes=2_000)),
        "b": record(
            "i-b", edge(handled=48, errors=2, recent_handled=19, wait=times(0.1), handling=times(2))
        ),
    }
    (found,) = merged(bodies).edges

    counts = found.counts
    assert (50, 5_000, 48, 2) == (counts.sent, counts.sent_bytes, counts.handled, counts.errors)
    assert (2.0, 200.0, 1.9) == (found.rate, found.bytes_rate, found.handled_rate)
    assert (1, 1) == (counts.wait.count, counts.handling.count)


def test_clients_are_seen_by_their_receivers():
    """A client stores no counts: the rate is that of handling."""
    found = merged({"b": record("i-b", edge("cli-*", handled=7, recent_handled=5))})

    assert [0.5] == [one.rate for one in found.edges]


def test_receivers_of_one_edge_add_up():
    """Each of three receivers of a broadcast counts what it handled."""
    bodies = {
        f"w{number}": record(f"i-{number}", edge(target="*", handled=10, wait=times(0.1)))
        for number in range(3)
    }
    (found,) = merged(bodies).edges

    assert (30, 3) == (found.counts.handled, found.counts.wait.count)


def test_what_ended_has_no_rate():
    """The counts of a process that was killed stay; it sends nothing any more."""
    bodies = {"a": record("i-a", edge(sent=50, recent_sent=20))}

    assert [0.0] == [one.rate for one in merged(bodies, alive=()).edges]
    assert [50] == [one.counts.sent for one in merged(bodies, alive=()).edges]


def test_lost_messages_have_their_sender():
    """A receiver knows the process they came from; its record tells the name."""
    table = EdgeTable()
    table.note_lost("i-a", "b", 3)
    table.note_lost("long-gone", "b", 4)
    lost = [edge(one.source, one.target, one.type, lost=one.lost) for one in table.edges()]
    found = merged({"a": record("i-a"), "b": record("i-b", *lost)})

    assert {("a", "b", "", 3), (UNKNOWN_SENDER, "b", "", 4)} == {
        (*one.counts.key, one.counts.lost) for one in found.edges
    }


def test_jobs_of_processes_add_up():
    """Outcomes and latencies by requester, worker and name."""
    bodies = {
        name: record(
            f"i-{name}",
            jobs=[
                JobCounts(
                    requester="a", worker="b", name="find",
                    outcomes={"completed": 2, name: 1}, latency=times(1.0, 2.0),
                )
            ],
        )
        for name in "xy"
    }  # fmt: skip
    (job,) = merged(bodies).jobs

    assert ({"completed": 4, "x": 1, "y": 1}, 4) == (job.outcomes, job.latency.count)


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        ((), {("a", "b"), ("b", "c.1"), ("c.2", "a")}),
        (("b",), {("a", "b"), ("b", "c.1")}),
        (("c",), {("b", "c.1"), ("c.2", "a")}),
        (("c.2", "b"), {("a", "b"), ("b", "c.1"), ("c.2", "a")}),
        (("nothing",), set()),
    ],
)
def test_edges_of_some_workers(names, ends):
    """Those that come from or go to them; a group is all its replicas."""
    edges = [edge("a", "b"), edge("b", "c.1"), edge("c.2", "a")]
    jobs = [JobCounts(requester=one.source, worker=one.target, name="j") for one in edges]
    found = merged({"a": record("i-a", *edges, jobs=jobs)}).of_workers(names)

    assert ends == {one.counts.key[:2] for one in found.edges}
    assert ends == {one.key[:2] for one in found.jobs}


def test_other_bytes_are_counted_not_read():
    """A record of another version, or of another program, hides no other."""
    found = merged({"a": b"rubbish", "b": record("i-b", edge(handled=1))})

    assert (1, 1, 1) == (found.unreadable, found.processes, len(found.edges))
    assert {"a", "b"} == found.names


@pytest.mark.parametrize("per_second", [3, 240, 20_000])
@pytest.mark.parametrize("seed", range(3))
def test_rates_agree_with_a_known_load(per_second, seed):
    """Within 2 %, after reports at odd times, of two senders and a receiver that is behind.

    A message takes place at a whole moment of its own, so what a window has differs by one at most.
    """
    rng = random.Random(seed)
    tables = {name: EdgeTable() for name in ("a.1", "a.2", "b")}
    reports = {name: StatsReports(table, f"i-{name}", None) for name, table in tables.items()}
    at, bodies = dict.fromkeys(tables, 1_000.0), {}
    for _ in range(30):
        for name, table in tables.items():
            at[name] += rng.uniform(1.6, 2.4)
            done = math.floor((at[name] - 1_000.0) * per_second)
            if name == "b":
                for source in ("a.1", "a.2"):
                    edge = table.edge(source, "b", "Note")
                    edge.handled += max(0, done - edge.handled - per_second // 10)
            else:
                edge = table.edge(name, "b", "Note")
                edge.sent_bytes += 300 * (done - edge.sent)
                edge.sent = done
            bodies[name] = encode_stats(reports[name].next_record(at[name]))
    found = merged(bodies, alive=[f"i-{name}" for name in tables])

    assert ["a.1", "a.2"] == sorted(edge.counts.source for edge in found.edges)
    window_s = 8.0  # at least: five reports
    bound = max(0.02 * per_second, 1 / window_s)
    for edge in found.edges:
        assert abs(edge.rate - per_second) <= bound
        assert abs(edge.handled_rate - per_second) <= bound
        assert abs(edge.bytes_rate - 300 * per_second) <= 300 * bound
