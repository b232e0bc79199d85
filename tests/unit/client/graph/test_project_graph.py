"""The graph of a project: declared and observed edges, and what is wrong with them."""

import os

import msgspec
import pytest

from pbus.client.graph.graph_check import differences, load_graph
from pbus.client.graph.project_graph import declared_graph, observed_graph
from pbus.client.traffic.edge_stats import EdgeStats, JobStats, ProjectStats
from pbus.errors import GraphFileError
from pbus.topology import load_topology

WORKERS = """
from pbus import BaseWorker, job

class Shop(BaseWorker):
    async def on_activated(self, args):
        await self.job("db", "load")
        await self.send_bus_message(Note(source=self.name))

class Store(BaseWorker):
    @job(name="load")
    async def load(self, request): ...
"""
TOPOLOGY = """
name: town
workers:
  shop: {worker: "w:Shop", depends_on: [db], sends_to: [print, ghost]}
  db: {worker: "w:Store", replicas: 2}
  print: {command: [sleep, "1"]}
"""


@pytest.fixture
def topology(tmp_path):
    (tmp_path / "w.py").write_text(WORKERS)
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    return load_topology(tmp_path / "topology.yaml", os.environ)


def counted(source, target, kind="Note", **fields):
    values = {
        "source": source, "target": target, "type": kind, "rate": 2.0, "bytes_rate": 0.0, "sent": 10,
        "bytes": 0, "handled": 9, "errors": 0, "lost": 0, "undelivered": 0, "wait_s": None,
        "handling_s": None,
    }  # fmt: skip
    return EdgeStats(**(values | fields))


def stats(*edges, jobs=()):
    return ProjectStats(project="town", edges=list(edges), jobs=list(jobs))


def edges(graph):
    return {(one.source, one.target): one for one in graph.edges}


def test_declared_edges_have_their_origin(topology):
    """Order, `sends_to` and code, replicas as one; a name that is no worker dangles."""
    graph = declared_graph(topology, os.environ)
    found = edges(graph)

    assert {
        ("shop", "db"): ["code", "depends_on"],
        ("shop", "print"): ["sends_to"],
        ("shop", "ghost"): ["sends_to"],
        ("shop", "*"): ["code"],
    } == {ends: one.declared for ends, one in found.items()}
    assert (["load"], ["Note"]) == (found["shop", "db"].jobs, found["shop", "*"].types)
    assert [("shop", "class"), ("db", "class"), ("print", "command")] == [
        (one.name, one.kind) for one in graph.workers[:3]
    ]
    assert (2, ["load"]) == (graph.workers[1].replicas, graph.workers[1].jobs)
    assert ([("shop", "ghost")], [], []) == (graph.dangling, graph.silent, graph.undeclared)


def test_observed_edges_are_compared(topology):
    """Undeclared ones, silent ones; an order of starts alone declares no messages."""
    graph = observed_graph(
        topology,
        os.environ,
        stats(
            counted("shop", "db.1", "BusJobRequestMessage"),
            counted("shop", "db.2", "BusJobRequestUrgentMessage"),
            counted("db.1", "shop", "BusJobResponseMessage"),
            counted("db.1", "print", "Bill"),
            counted("cli-*", "shop", "BusFrameMessage", sent=0),
            counted("runner-*", "*", "BusWorkerRegistryMessage"),
            counted("shop", "runner-*", "Note"),
            counted("(other)", "(other)", "(other)"),
            jobs=[
                JobStats(requester="shop", worker="db.2", name="drop", outcomes={}, latency_s=None)
            ],
        ),
    )
    found = edges(graph)

    assert (20, 4.0, []) == (
        found["shop", "db"].messages, found["shop", "db"].rate, found["shop", "db"].types,
    )  # fmt: skip
    assert ["drop", "load"] == found["shop", "db"].jobs
    assert 9 == found["cli-*", "shop"].messages
    assert [("db", "print")] == graph.undeclared
    assert [("shop", "print"), ("shop", "ghost"), ("shop", "*")] == graph.silent
    assert ("db", "shop") not in found
    assert not any("runner" in end or "(" in end for ends in found for end in ends)


def test_messages_along_an_order_of_starts_are_undeclared(topology):
    """`depends_on` says when a worker starts, not that it sends."""
    text = TOPOLOGY.replace(", sends_to: [print, ghost]", "").replace('"w:Shop"', '"w:Store"')
    topology.file.write_text(text)
    graph = observed_graph(
        load_topology(topology.file, os.environ), os.environ, stats(counted("shop", "db"))
    )

    assert ([("shop", "db")], []) == (graph.undeclared, graph.silent)


@pytest.mark.parametrize(
    "kind", ["BusWorkerReadyMessage", "BusWorkerRegistryMessage", "BusJobCreditMessage"]
)
def test_housekeeping_is_no_edge(topology, kind):
    """That a worker is ready is told to everyone by the bus: it was an undeclared edge of each."""
    graph = observed_graph(
        load_topology(topology.file, os.environ), os.environ, stats(counted("db", "*", kind))
    )
    assert ([], []) == (graph.undeclared, [one for one in graph.edges if one.ends == ("db", "*")])


def test_a_saved_graph_is_the_same(topology, tmp_path):
    """Rates and counts are no difference; all else is, and is named."""
    file = tmp_path / "graph.json"
    graph = observed_graph(topology, os.environ, stats(counted("shop", "db", "Note")))
    file.write_bytes(msgspec.json.encode(graph))
    later = observed_graph(topology, os.environ, stats(counted("shop", "db", "Note", sent=99)))
    assert [] == differences(load_graph(file), later)
    assert [] == differences(load_graph(file), declared_graph(topology, os.environ))

    now = observed_graph(
        topology, os.environ, stats(counted("shop", "db", "Other"), counted("db", "db", "Note"))
    )
    assert [
        "+ edge db -> db",
        "~ edge shop -> db: types Note, now Other",
    ] == differences(load_graph(file), now)


def test_a_changed_topology_differs(topology):
    """Workers, replicas, jobs and edges that are new, gone or other."""
    before = declared_graph(topology, os.environ)
    text = TOPOLOGY.replace("replicas: 2", "replicas: 3").replace("[print, ghost]", "[print]")
    topology.file.write_text(
        text.replace('print: {command: [sleep, "1"]}', "post: {worker: 'w:Shop'}")
    )
    after = declared_graph(load_topology(topology.file, os.environ), os.environ)
    found = differences(before, after)

    assert "~ worker db: replicas 2, now 3" in found
    assert {"- edge shop -> ghost", "- worker ghost", "+ worker post", "+ edge post -> db"} <= set(
        found
    )
    assert "~ worker print: kind command, now unknown" in found


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"project": 1}', "\x00"])
def test_other_files_are_no_graph(tmp_path, text):
    """The error says how one is saved."""
    file = tmp_path / "graph.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(GraphFileError, match=r"graph\.json: ") as caught:
        load_graph(file)
    assert "--format json" in caught.value.hint
