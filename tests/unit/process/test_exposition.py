"""The text for Prometheus: valid in both formats, true, bounded, and what the dashboard shows."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from pbus.observe import WorkerRow
from pbus.process.metrics import exposition
from pbus.process.metrics.exposition import Snapshot, metrics_text
from pbus.stats.edge_table import OTHER
from pbus.stats.histogram import Histogram
from pbus.stats.merged_stats import MergedEdge, MergedStats
from pbus.stats.stats_record import EdgeCounts, JobCounts

DASHBOARD = Path(__file__).parents[3] / "configs" / "metrics" / "grafana.json"
HARD = 'quo"te\\ and\nnew line é'


def row(name="a", **changes):
    values = {
        "name": name, "state": "ready", "ready": True, "active": True, "runner": "runner-1",
        "host": "here", "pid": 1, "uptime_s": 1.0, "restarts": 2, "cpu_percent": 50.0,
        "rss_bytes": 1024, "received": 0, "sent": 0, "lost": 0, "queued": 7, "refused": 0,
    }  # fmt: skip
    return WorkerRow(**(values | changes))


def times(*seconds):
    histogram = Histogram()
    for one in seconds:
        histogram.record(one)
    return histogram


def snapshot(edges=None, jobs=None, **changes):
    if edges is None:
        edges = [
            EdgeCounts(
                source="a", target="*", type="Note", sent=10, sent_bytes=999, undelivered=1,
                lost=2, handled=30, errors=4, wait=times(1e-6, 0.5, 0.5, 7200), handling=times(1.0),
            )
        ]  # fmt: skip
    if jobs is None:
        outcomes = {"completed": 3, "timeout": 1}
        jobs = [
            JobCounts(requester="a", worker="b", name="find", outcomes=outcomes, latency=times(0.1))
        ]
    stats = MergedStats(edges=[MergedEdge(counts=one) for one in edges], jobs=jobs)
    values = {"is_connected": True, "rows": [row()], "stats": stats}
    return Snapshot(**(values | changes))


def samples(given, accept=""):
    """The values by name and labels, as Prometheus reads them."""
    body, kind = metrics_text(given, accept)
    read = (
        openmetrics.text_string_to_metric_families
        if "openmetrics" in kind
        else text_string_to_metric_families
    )
    families = list(read(body.decode()))
    assert all(family.name.startswith("pbus_") for family in families)
    found = [
        ((one.name, tuple(sorted(one.labels.items()))), one.value)
        for family in families
        for one in family.samples
    ]
    assert len(found) == len(dict(found)), "a series twice"
    return dict(found)


def value(found, name, **labels):
    return found[name, tuple(sorted(labels.items()))]


@pytest.mark.parametrize(
    "accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0"]
)
def test_all_is_told(accept):
    """Each count under its name, whatever format the scraper asks for."""
    found = samples(snapshot(), accept)
    edge = {"source": "a", "target": "*", "type": "Note"}

    assert {
        "sent": 10, "sent_bytes": 999, "undelivered": 1, "lost": 2, "handled": 30, "failed": 4,
    } == {
        name: value(found, f"pbus_messages_{name}_total", **edge)
        for name in ("sent", "sent_bytes", "undelivered", "lost", "handled", "failed")
    }  # fmt: skip
    job = {"requester": "a", "worker": "b", "job": "find"}
    assert 3 == value(found, "pbus_jobs_total", outcome="completed", **job)
    assert 1 == value(found, "pbus_job_latency_seconds_count", **job)
    assert 1 == value(found, "pbus_broker_connected")
    assert [1, 1024, 0.5, 7, 2] == [
        value(found, f"pbus_worker_{name}", worker="a")
        for name in ("ready", "memory_bytes", "cpu_ratio", "queued_messages", "restarts_total")
    ]
    assert 1 == value(found, "pbus_worker_state", worker="a", state="ready")


def test_buckets_add_up():
    """Cumulative, ending with all; the sum is that of the durations."""
    found = samples(snapshot())
    name = "pbus_message_wait_seconds"
    buckets = {
        float(dict(labels)["le"]): count
        for (one, labels), count in found.items()
        if one == f"{name}_bucket"
    }
    counts = [buckets[bound] for bound in sorted(buckets)]

    assert sorted(counts) == counts
    assert (1, 4) == (counts[0], buckets[float("inf")])
    assert 3 == max(count for bound, count in buckets.items() if bound < 3600)
    edge = {"source": "a", "target": "*", "type": "Note"}
    assert 7201.0 == pytest.approx(value(found, f"{name}_sum", **edge), rel=1e-6)
    assert 4 == value(found, f"{name}_count", **edge)


def test_any_name_is_a_label():
    """Names are of other programs: they are written so that they are read again."""
    edge = EdgeCounts(source=HARD, target="b", type=HARD, sent=1)
    found = samples(snapshot([edge], []))

    assert 1 == value(found, "pbus_messages_sent_total", source=HARD, target="b", type=HARD)


def test_series_are_bounded(monkeypatch):
    """Beyond the bound edges are told together; nothing is told twice, nothing left out."""
    monkeypatch.setattr(exposition, "MAX_SERIES_EDGES", 5)
    edges = [EdgeCounts(source=f"s{n}", target="b", type="T", sent=n) for n in range(20)]
    edges.append(EdgeCounts(source=OTHER, target=OTHER, type=OTHER, sent=1_000))
    jobs = [
        JobCounts(requester=f"r{n}", worker="b", name="j", outcomes={"completed": 1})
        for n in range(20)
    ]
    found = samples(snapshot(edges, jobs))
    sent = [count for (name, _), count in found.items() if name == "pbus_messages_sent_total"]

    assert (6, 1_190) == (len(sent), sum(sent))
    assert 15 == value(
        found, "pbus_jobs_total", requester=OTHER, worker=OTHER, job=OTHER, outcome="completed"
    )


def test_what_is_unknown_is_not_told():
    """A worker that does not run has no memory; without a broker there are no counts."""
    found = samples(
        snapshot([], [], is_connected=False, rows=[row(rss_bytes=None, cpu_percent=None)])
    )

    assert 0 == value(found, "pbus_broker_connected")
    assert not any("memory" in name or "messages_sent" in name for name, _ in found)


def test_dashboard_shows_what_exists():
    """Each query is about metrics and labels that are told, and each panel has its place."""
    found = samples(snapshot())
    names = {name for name, _ in found}
    labels = {label for _, pairs in found for label, _ in pairs}
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]

    used = {name for query in queries for name in re.findall(r"pbus_\w+", query)}
    grouped = {
        label.strip()
        for query in queries
        for labels_text in re.findall(r"by \(([^)]*)\)", query)
        for label in labels_text.split(",")
    }
    shown = {
        label
        for panel in panels
        for target in panel["targets"]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    }
    assert len(used) > 12
    assert set() == used - names
    assert set() == (grouped | shown) - labels
    assert len(panels) == len({panel["id"] for panel in panels})
    places = {
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    }
    area = sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels)
    assert area == len(places)
    assert max(x for x, _ in places) == 23
