"""`pbus graph`: the messages and jobs that workers exchange, declared and observed."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.options import ProjectName, TopologyFiles, merged_files
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pbus.client.graph.project_graph import ProjectGraph
    from pbus.topology import Topology


class GraphFormat(StrEnum):
    """A form of the graph."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"
    JSON = "json"
    ASYNCAPI = "asyncapi"


def graph(
    project: ProjectName = None,
    file: TopologyFiles = None,
    observed: Annotated[
        bool,
        typer.Option("--observed", help="Add what the workers counted; the project has to run."),
    ] = False,
    form: Annotated[
        GraphFormat, typer.Option("--format", help="The form of the output.")
    ] = GraphFormat.TEXT,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="FILE",
            help="Compare with a graph that was saved as JSON; 1 where they differ.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the workers and what they send each other, as declared and as observed.

    Declared are `depends_on`, `sends_to`, and what the code of worker classes says in plain text:
    jobs that are requested, targets of messages. Nothing is imported. With --observed edges that are
    undeclared or silent are reported, too.

    Example: pbus graph --format json > graph.json; pbus graph --check graph.json
    """
    from pbus.client.graph.project_graph import declared_graph, observed_graph

    if observed:
        from pbus_cli.call.attach import call, choose

        attachment = choose(project, file)
        record = attachment.record
        files: Sequence[Path] = record.files if record else merged_files(attachment.file, None)
        topology = _loaded(files)
        stats = call(attachment, lambda client: client.stats())
        found = observed_graph(topology, os.environ, stats)
    else:
        topology = _loaded(_files(project, file))
        found = declared_graph(topology, os.environ)
    if check is not None:
        _check(found, check)
        return
    _print(found, form, topology)


def _files(project: str | None, file: "list[Path] | None") -> "Sequence[Path]":
    """The files of the project that was named, or of this folder."""
    if project is not None:
        from pbus_cli.call.attach import choose

        record = choose(project, file).record
        if record is not None:
            return record.files
    return merged_files(None, file)


def _loaded(files: "Sequence[Path]") -> "Topology":
    from pbus.topology import load_topology

    return load_topology(files, os.environ)


def _check(found: "ProjectGraph", file: Path) -> None:
    from pbus.client.graph.graph_check import differences, load_graph
    from pbus.errors import GraphFileError

    try:
        saved = load_graph(file)
    except GraphFileError as error:
        raise typer.BadParameter(f"{error} ({error.hint})", param_hint="--check") from None
    if lines := differences(saved, found):
        console.say("\n".join(lines))
        console.note(f"the graph differs from {file}; save it again where that is meant")
        raise typer.Exit(1)
    console.note(f"the graph is that of {file}")


def _print(found: "ProjectGraph", form: GraphFormat, topology: "Topology") -> None:
    from pbus_cli.views.graphs.graph_text import graph_lines, problem_lines

    match form:
        case GraphFormat.JSON:
            console.say_json(found)
        case GraphFormat.ASYNCAPI:
            from pbus.client.graph.asyncapi import asyncapi_document

            console.say_json(asyncapi_document(found, topology.bus))
        case GraphFormat.SVG:
            from pbus_cli.views.graphs.graph_svg import svg_text

            console.say(svg_text(found))
        case GraphFormat.TEXT:
            console.say("\n".join(graph_lines(found)))
        case _:
            from pbus_cli.views.graphs.diagram_text import dot_text, mermaid_text

            console.say((dot_text if form is GraphFormat.DOT else mermaid_text)(found))
    for line in problem_lines(found):
        console.note(line)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(graph)
