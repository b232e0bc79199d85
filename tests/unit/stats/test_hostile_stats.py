"""Counts of messages from strangers, and records that are none: bounded, refused, and shown as something."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pbus.client.traffic.edge_stats import EdgeStats, JobStats
from pbus.messages import BusDataMessage
from pbus.stats.edge_table import EVERYONE, MAX_EDGES, OTHER, EdgeTable, kind_of_address
from pbus.stats.merged_stats import merge_stats
from pbus_cli.views.tables.edge_lines import edge_lines, job_stat_lines

TIMES = [{3: 5}, 0.5]
RECORD = {
    "incarnation": "one",
    "session": None,
    "window_s": 10.0,
    "edges": [
        {
            "source": "a", "target": "b", "type": "T", "sent": 5, "sent_bytes": 90, "undelivered": 1,
            "lost": 1, "handled": 5, "errors": 1, "recent_sent": 3, "recent_handled": 2,
            "recent_bytes": 9, "wait": TIMES, "handling": TIMES,
        }
    ],
    "jobs": [
        {"requester": "a", "worker": "b", "name": "n", "outcomes": {"completed": 3}, "latency": TIMES}
    ],
}  # fmt: skip
STRANGE: list[Any] = [
    None, True, "", "\x1b[2J", "x" * 5000, 0, -1, 2**63, 2**64 - 1, 1e308, 5e-324, -0.0, float("nan"),
    float("inf"), float("-inf"), [], {}, [[]], {"a": 1}, {2**40: 1}, {-1: 1}, {3: 2**64 - 1}, {3: -5},
    b"\xff",
]  # fmt: skip


class StrangeNote(BusDataMessage):
    """Says nothing."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside a record."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in inside:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def with_value(path: tuple[Any, ...], value: Any) -> bytes:
    """The record with another value in one place."""
    root = copy.deepcopy(RECORD)
    inner: Any = root
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return msgspec.msgpack.encode(root)


@pytest.mark.parametrize("path", list(places(RECORD)), ids=lambda path: ".".join(map(str, path)))
def test_any_record_is_shown_or_left_out(path: tuple[Any, ...]):
    """Whatever a field has: a table and JSON come of it, beside the record of another process."""
    good = msgspec.msgpack.encode(RECORD)
    for value in STRANGE:
        merged = merge_stats({"a": with_value(path, value), "b": good}, lambda _: True)
        edges = [EdgeStats.of(edge) for edge in merged.edges]
        jobs = [JobStats.of(job) for job in merged.jobs]
        for width in (None, 80):
            assert edge_lines(edges, width)
            assert job_stat_lines(jobs, width)
        shown = json.loads(msgspec.json.encode(edges))
        assert 1 <= merged.processes == 2 - merged.unreadable
        assert any(one["source"] == "a" and one["type"] == "T" for one in shown)
        assert all(one["rate"] is not None for one in shown)


@pytest.mark.parametrize("window_s", [5e-324, 1e-9, -1.0, float("nan"), float("inf")])
def test_a_window_of_no_length_is_none(window_s: float):
    """Rates would be endless."""
    merged = merge_stats({"a": with_value(("window_s",), window_s)}, lambda _: True)

    assert (0, 1) == (merged.processes, merged.unreadable)


@pytest.mark.parametrize(
    "address", ["@", "@" * 500, "@" * 5000, "a@" * 3000, "x" * 1_000_000, "cli-" + "x" * 5000, "-"]
)
def test_any_source_is_counted(address: str):
    """Names have no form where no process checks them."""
    table = EdgeTable()
    table.find(StrangeNote(source=address, target="b")).handled += 1
    table.find(StrangeNote(source="b", target=address)).handled += 1
    table.job_edge(address, address, address).note("completed", 1.0)

    assert 2 == sum(edge.handled for edge in table.edges())
    names = [name for edge in table.edges() for name in (edge.source, edge.target)]
    assert max(map(len, [*names, kind_of_address(address)])) <= 1024


def test_long_names_take_no_memory():
    """Invented sources, targets, types and jobs of any length are counted together."""
    table = EdgeTable()
    for number in range(3 * MAX_EDGES):
        long = f"{number:06}" * 5000
        head = b'{"type":"%b","source":"%b","target":"b"}' % (long.encode(), long.encode())
        table.note_sent("b", [head], len(head), is_undelivered=False)
        table.find(StrangeNote(source=long, target=long))
        table.job_edge(long, long, long)
    (job,) = table.job_edges()

    assert (OTHER, OTHER, OTHER) == (job.requester, job.worker, job.name)
    assert {OTHER, "b", "StrangeNote"} >= {
        name for edge in table.edges() for name in (edge.source, edge.target, edge.type)
    }
    assert {} == table._cache


def test_addresses_are_told_by_kind():
    """Those that are made up at each start, alone and as the runner of a child."""
    kinds = {
        "w": "w",
        "cli-1": "cli-*",
        "runner-7": "runner-*",
        "child@runner-7": "child@runner-*",
        "child@w": "child@w",
        "cli-x@runner-7": "cli-*",
        EVERYONE: EVERYONE,
    }

    assert kinds == {address: kind_of_address(address) for address in kinds}
