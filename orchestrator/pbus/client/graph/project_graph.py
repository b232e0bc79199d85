"""The graph of a project: its workers, and edges that are declared, observed, or both."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from pbus.client.traffic.edge_stats import ProjectStats
from pbus.client.traffic.type_names import HOUSEKEEPING
from pbus.names import group_of
from pbus.stats.edge_table import OTHER
from pbus.topology.code.exchanges import EVERYONE, Exchanges, exchanges_of
from pbus.topology.model import Topology

CLIENTS: Final = "cli-*"
_PROCESSES: Final = ("runner-", "supervisor-", OTHER, "(unknown)", "")
_REPLIES: Final = (
    "BusJobResponse",
    "BusJobUpdateMessage",
    "BusJobUpdateUrgent",
    "BusJobStream",
)
_JOB_REQUESTS: Final = ("BusJobRequestMessage", "BusJobRequestUrgentMessage")

Kind = Literal["class", "command", "clients", "everyone", "unknown"]
Origin = Literal["depends_on", "sends_to", "code"]
Ends = tuple[str, str]


class GraphWorker(msgspec.Struct, kw_only=True):
    """A node.

    Attributes:
        kind: Of its program; "clients" are all, "everyone" the target of broadcasts, "unknown" is a
            name that the topology does not have.
        replicas: The number of its processes; None for one without a number.
        jobs: The names of the jobs that its class handles.
    """

    name: str
    kind: Kind
    replicas: int | None = None
    jobs: list[str] = []


class GraphEdge(msgspec.Struct, kw_only=True):
    """An edge from a worker to another.

    Attributes:
        declared: Where it is declared; empty where it is only observed.
        jobs: The names of the jobs that are requested.
        types: The types of the messages.
        messages: The number of messages that were observed, answers to jobs apart.
        rate: Those a second, over the last 10 s.
    """

    source: str
    target: str
    declared: list[Origin] = []
    jobs: list[str] = []
    types: list[str] = []
    messages: int = 0
    rate: float = 0.0

    @property
    def ends(self) -> Ends:
        """Source and target."""
        return self.source, self.target

    @property
    def carries(self) -> bool:
        """Whether messages are declared for it, not only an order of starts."""
        return any(one != "depends_on" for one in self.declared)


class ProjectGraph(msgspec.Struct, kw_only=True):
    """Workers and edges of a project.

    Attributes:
        is_observed: Whether it has what was observed.
        undeclared: Edges that were observed between workers and are declared nowhere.
        silent: Edges that are declared and were not observed.
        dangling: Edges to a name that the topology does not have.
    """

    project: str
    is_observed: bool
    workers: list[GraphWorker]
    edges: list[GraphEdge]
    undeclared: list[Ends] = []
    silent: list[Ends] = []
    dangling: list[Ends] = []


def declared_graph(topology: Topology, environ: Mapping[str, str]) -> ProjectGraph:
    """The graph that a topology and the code of its workers declare; nothing is imported.

    Args:
        topology: It was loaded.
        environ: Of this process; workers inherit it.
    """
    builder = _Builder(topology)
    for spec in topology.workers.values():
        for dependency in spec.depends_on:
            builder.declare(spec.name, dependency.worker, "depends_on")
        for target in spec.sends_to:
            builder.declare(spec.name, target, "sends_to")
    for name, exchanges in exchanges_of(topology, environ).items():
        builder.declare_code(name, exchanges)
    return builder.graph(is_observed=False)


def observed_graph(
    topology: Topology, environ: Mapping[str, str], stats: ProjectStats
) -> ProjectGraph:
    """The declared graph with what the workers counted.

    Args:
        topology: It was loaded.
        environ: Of this process.
        stats: Of the project.
    """
    builder = _Builder(topology)
    declared = declared_graph(topology, environ)
    builder.add(declared)
    for edge in stats.edges:
        if edge.type not in HOUSEKEEPING and not edge.type.startswith(_REPLIES):
            kinds = [] if edge.type in _JOB_REQUESTS else [edge.type]
            builder.observe(edge.source, edge.target, kinds, edge.sent or edge.handled, edge.rate)
    for job in stats.jobs:
        builder.observe_job(job.requester, job.worker, job.name)
    return builder.graph(is_observed=True)


class _Builder:
    """Collects nodes and edges; replicas are one node."""

    def __init__(self, topology: Topology) -> None:
        self._project = topology.name
        self._groups = topology.groups()
        self._workers = {
            spec.name: GraphWorker(
                name=spec.name,
                kind="class" if spec.worker else "command",
                replicas=spec.replicas,
            )
            for spec in topology.workers.values()
        }
        self._edges: dict[Ends, GraphEdge] = {}

    def add(self, graph: ProjectGraph) -> None:
        """Take over what is declared."""
        self._workers = {worker.name: worker for worker in graph.workers}
        self._edges = {edge.ends: edge for edge in graph.edges}

    def declare(self, source: str, target: str, origin: Origin) -> GraphEdge:
        """Add a declared edge."""
        edge = self._edge(source, self._node(target))
        edge.declared = sorted({*edge.declared, origin})
        return edge

    def declare_code(self, name: str, exchanges: Exchanges) -> None:
        """Add the edges of a worker's class."""
        self._workers[name].jobs = sorted(exchanges.jobs)
        for target, job in exchanges.requests:
            edge = self.declare(name, target, "code")
            edge.jobs = sorted({*edge.jobs, *filter(None, [job])})
        for target, kind in exchanges.sends:
            edge = self.declare(name, target, "code")
            edge.types = sorted({*edge.types, kind})

    def observe(
        self, source: str, target: str, kinds: Iterable[str], messages: int, rate: float
    ) -> None:
        """Add messages that were counted; those of processes that host workers are left out."""
        ends = self._node(source), self._node(target)
        if any(end.startswith(_PROCESSES[:2]) or end in _PROCESSES for end in ends):
            return
        edge = self._edge(*ends)
        edge.types = sorted({*edge.types, *kinds})
        edge.messages += messages
        edge.rate += rate

    def observe_job(self, requester: str, worker: str, name: str) -> None:
        """Add the name of a job that was requested."""
        edge = self._edges.get((self._node(requester), self._node(worker)))
        if edge is not None:
            edge.jobs = sorted({*edge.jobs, *filter(None, [name])})

    def graph(self, *, is_observed: bool) -> ProjectGraph:
        """The graph, in the order of the topology, with what is wrong with its edges."""
        known = dict(self._workers)
        for end in (end for ends in self._edges for end in ends):
            known.setdefault(end, GraphWorker(name=end, kind=_kind_of(end)))
        order = list(known).index
        edges = sorted(self._edges.values(), key=lambda one: (order(one.source), order(one.target)))
        graph = ProjectGraph(
            project=self._project,
            is_observed=is_observed,
            workers=list(known.values()),
            edges=edges,
            dangling=[one.ends for one in edges if known[one.target].kind == "unknown"],
        )
        if is_observed:
            _compare(graph)
        return graph

    def _edge(self, source: str, target: str) -> GraphEdge:
        return self._edges.setdefault((source, target), GraphEdge(source=source, target=target))

    def _node(self, address: str) -> str:
        """The node of an address: of a replica its group's, of a child its own name."""
        name = address.partition("@")[0]
        group = group_of(name)
        return group if group is not None and group in self._groups else name


def _compare(graph: ProjectGraph) -> None:
    """Find the edges that are observed and not declared, and those that are silent."""
    own = {one.name for one in graph.workers if one.kind in {"class", "command"}}
    for edge in graph.edges:
        if edge.messages and edge.source in own and not edge.carries:
            graph.undeclared.append(edge.ends)
        elif edge.carries and not edge.messages:
            graph.silent.append(edge.ends)


def _kind_of(name: str) -> Kind:
    kinds: dict[str, Kind] = {EVERYONE: "everyone", CLIENTS: "clients"}
    return kinds.get(name, "unknown")
