"""Tools that look at a running project: ps, stats, jobs, dlq, tail, graph."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pbus.client import Client
from pbus.client.graph.project_graph import declared_graph, observed_graph
from pbus.client.traffic.message_filter import TailTerms
from pbus.client.traffic.message_tail import decoded_fields
from pbus.errors import NothingRunningError
from pbus.messages import Category
from pbus.topology import load_topology
from pbus_cli.input.options import merged_files
from pbus_cli.tools.tool import NoArguments, ProjectChoice, Tool, ToolArguments, at_most
from pbus_cli.tools.tool_result import sanitised
from pbus_cli.views.tables.job_table import job_fields
from pbus_cli.views.tables.queue_table import dead_row, status_fields


class _Stats(ToolArguments):
    workers: Annotated[
        list[str], Meta(max_length=100, description="Only edges from or to these.")
    ] = msgspec.field(default_factory=list)


class _DeadLetters(ToolArguments):
    worker: Annotated[str, Meta(description="Those of this worker only.")] | None = None


class _Graph(ToolArguments):
    observed: Annotated[
        bool, Meta(description="Add what the workers counted; the project has to run.")
    ] = False


_Names = Annotated[list[str], Meta(max_length=100)]


class _Tail(ToolArguments):
    duration_s: Annotated[
        float, Meta(gt=0, le=60, description="Seconds to listen; it returns earlier with enough.")
    ] = 5.0
    count: Annotated[int, Meta(ge=1, le=200, description="Messages to return at most.")] = 50
    source: Annotated[_Names, Meta(description="Senders; * and ? match.")] = msgspec.field(
        default_factory=list
    )
    target: Annotated[_Names, Meta(description="Receivers, likewise; * alone: broadcasts.")] = (
        msgspec.field(default_factory=list)
    )
    type: Annotated[_Names, Meta(description="Types, likewise.")] = msgspec.field(
        default_factory=list
    )
    category: list[Category] = msgspec.field(default_factory=list)
    exclude: Annotated[_Names, Meta(description="Workers or types to leave out.")] = msgspec.field(
        default_factory=list
    )
    job: Annotated[_Names, Meta(description="Ids of jobs.")] = msgspec.field(default_factory=list)
    trace: Annotated[_Names, Meta(description="Ids of traces: whole conversations.")] = (
        msgspec.field(default_factory=list)
    )
    match: (
        Annotated[
            str, Meta(description="A JMESPath expression that holds for the returned fields.")
        ]
        | None
    ) = None
    headers_only: Annotated[bool, Meta(description="Without the messages' own fields.")] = False


async def _ps(choice: ProjectChoice, _: NoArguments) -> dict[str, Any]:
    async def read(client: Client) -> dict[str, Any]:
        status = await client.status()
        return {**status_fields(status, status.rows), "remarks": status.remarks}

    return await choice.ask(read)


async def _stats(choice: ProjectChoice, given: _Stats) -> dict[str, Any]:
    async def read(client: Client) -> dict[str, Any]:
        found = await client.stats(*given.workers)
        return {"project": found.project, "jobs": found.jobs, "edges": found.edges}

    return await choice.ask(read)


async def _jobs(choice: ProjectChoice, _: NoArguments) -> dict[str, Any]:
    async def read(client: Client) -> dict[str, Any]:
        found = await client.open_jobs()
        return {"jobs": [job_fields(entry) for entry in found.jobs], "silent": found.silent}

    return await choice.ask(read)


async def _dead_letters(choice: ProjectChoice, given: _DeadLetters) -> dict[str, Any]:
    async def read(client: Client) -> dict[str, Any]:
        found = await client.dead_letters.list(given.worker)
        return {"dead_letters": [dead_row(message) for message in found]}

    return await choice.ask(read)


async def _tail(choice: ProjectChoice, given: _Tail) -> dict[str, Any]:
    terms: TailTerms = {
        "source": given.source, "target": given.target, "type": given.type, "category": given.category,
        "exclude": given.exclude, "job": given.job, "trace": given.trace, "match": given.match,
        "headers_only": given.headers_only,
    }  # fmt: skip

    async def follow(client: Client) -> dict[str, Any]:
        messages: list[Any] = []
        async with client.tail(**terms) as tail, at_most(given.duration_s):
            async for message in tail:
                messages.append(sanitised(decoded_fields(message)))
                if len(messages) == given.count:
                    break
        return {"passed": tail.passed, "missed": tail.missed, "messages": messages}

    return await choice.ask(follow)


async def _graph(choice: ProjectChoice, given: _Graph) -> dict[str, Any]:
    if not given.observed:
        found = declared_graph(load_topology(_files(choice), os.environ), os.environ)
        return dict(msgspec.to_builtins(found))

    async def read(client: Client) -> dict[str, Any]:
        topology = load_topology(_files(choice), os.environ)
        found = observed_graph(topology, os.environ, await client.stats())
        return dict(msgspec.to_builtins(found))

    return await choice.ask(read)


def _files(choice: ProjectChoice) -> Sequence[Path]:
    """The topology files of the project, running or not."""
    try:
        attachment = choice.find()
    except NothingRunningError:
        if choice.project is not None:
            raise
        return merged_files(None, list(choice.files) if choice.files else None)
    record = attachment.record
    return merged_files(attachment.file, None) if record is None else record.files


READING_TOOLS = (
    Tool(
        "ps",
        "The workers of the project: state, process, memory, counters, queues, running handlers.",
        NoArguments, _ps, "workers",
    ),
    Tool(
        "stats",
        "Messages and jobs by edge (source, target, type): rates, waiting, handling, errors, losses.",
        _Stats, _stats, "edges",
    ),
    Tool("jobs", "Jobs that are open now, with requester, worker, state and age.", NoArguments, _jobs, "jobs"),
    Tool(
        "dlq",
        "Dead letters: stored messages whose handling failed too often, oldest first.",
        _DeadLetters, _dead_letters, "dead_letters",
    ),
    Tool(
        "tail",
        "Messages between workers as they pass, for a bounded time; workers do not notice.",
        _Tail, _tail, "messages",
    ),
    Tool(
        "graph",
        "Workers and what they send each other, as declared in topology and code, or as observed.",
        _Graph, _graph, "edges",
    ),
)  # fmt: skip
