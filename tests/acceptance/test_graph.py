"""`pbus graph`: from a file alone, from a project that runs, and as a gate."""

import json
from xml.etree import ElementTree as ET

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: drawn
workers:
  main: {worker: "w:Main", sends_to: [store]}
  store: {worker: "w:Store"}
"""
WORKERS = """
raise SystemExit("read, never imported")
from pbus import BaseWorker, job

class Main(BaseWorker):
    async def on_activated(self, args):
        await self.job("store", "load")

class Store(BaseWorker):
    @job(name="load")
    async def load(self, request): ...
"""


@pytest.fixture
def drawn(cli: CliEnv, request: pytest.FixtureRequest) -> Place:
    return cli.place(request.node.name, {"topology.yaml": TOPOLOGY, "w.py": WORKERS})


def test_a_saved_graph_is_a_gate(drawn: Place):
    """0 while it is the same, 1 with the differences, 2 for a file that is no graph."""
    saved = drawn.run("graph", "--format", "json")
    assert (0, "") == (saved.code, saved.err)
    (drawn.folder / "graph.json").write_text(saved.out)
    same = drawn.run("graph", "--check", "graph.json")
    assert (0, "") == (same.code, same.out)

    (drawn.folder / "topology.yaml").write_text(TOPOLOGY.replace("[store]", "[stor]"))
    other = drawn.run("graph", "--check", "graph.json")
    assert 1 == other.code
    assert [
        "+ edge main -> stor",
        "~ edge main -> store: declared code, sends_to, now code",
        "+ worker stor",
    ] == other.out.splitlines()
    dangling = drawn.run("graph")
    assert (0, True) == (dangling.code, "main -> stor is dangling" in dangling.err)
    assert 2 == drawn.run("graph", "--check", "w.py").code


@pytest.mark.parametrize(
    ("form", "begins"),
    [("text", "main\n  -> store  load()"), ("mermaid", "flowchart LR"), ("dot", "digraph"),
     ("svg", "<svg"), ("asyncapi", "{"), ("json", "{")],
)  # fmt: skip
def test_each_form_is_written(drawn: Place, form: str, begins: str):
    """To stdout alone, so that it can be piped into other programs."""
    done = drawn.run("graph", "--format", form)

    assert (0, "") == (done.code, done.err)
    assert done.out.startswith(begins)
    if form == "svg":
        ET.fromstring(done.out)
    if begins == "{":
        document = json.loads(done.out)
        assert {"asyncapi": "3.0.0", "json": None}[form] == document.get("asyncapi")


def test_what_happens_is_observed(sample: Place):
    """Messages that were counted, clients' among them, beside what is declared."""

    def from_clients():
        edges = sample.run("graph", "--observed", "--format", "json").json["edges"]
        return {edge["target"]: edge for edge in edges if edge["source"] == "cli-*"}

    before = from_clients().get("post", {"messages": 0})["messages"]
    sample.tell("send", "post", "--text", "seen", "--count", "3")
    edge = wait_for(
        lambda: (found := from_clients().get("post")) and found["messages"] >= before + 3 and found
    )
    assert "BusFrameMessage" in edge["types"]
    assert [] == edge["declared"]
