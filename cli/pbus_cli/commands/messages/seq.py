"""`pbus seq`: a sequence diagram of what happens."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.completing import job_ids
from pbus_cli.input.options import Duration, ProjectName, TopologyFiles, parse_duration
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.client import Client
    from pbus.client.sequences.sequence_collector import SequenceCollector
    from pbus.client.sequences.sequence_diagram import SequenceDiagram


class SequenceFormat(StrEnum):
    """A form of the diagram."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


def seq(
    trace: Annotated[
        list[str] | None,
        typer.Option(
            "--trace", metavar="ID", help="Only this trace, a whole conversation (* and ? match)."
        ),
    ] = None,
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job", metavar="ID", help="Only messages of this job.", autocompletion=job_ids
        ),
    ] = None,
    duration: Duration = None,
    recording: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Of a recording, not live.", show_default=False
        ),
    ] = None,
    last_s: Annotated[
        float | None,
        typer.Option(
            "--last",
            metavar="TIME",
            parser=parse_duration,
            help="Of the last 20s, 5m …, as kept by the supervisor.",
        ),
    ] = None,
    form: Annotated[
        SequenceFormat, typer.Option("--format", help="The form of the output.")
    ] = SequenceFormat.TEXT,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Show the messages between workers as a sequence diagram, with their ends and starts.

    It follows the messages until Ctrl-C, or --for so long, and prints the diagram then; with --from
    it shows those of a recording, with --last (and for --trace and --job without --for) those that the
    project's supervisor has kept, if it keeps them.
    """
    from pbus.client.sequences.sequence_collector import SequenceCollector
    from pbus.client.traffic.message_filter import Filter
    from pbus.errors import NothingRunningError
    from pbus_cli.call.attach import call, choose

    collector = SequenceCollector(Filter(traces=tuple(trace or ()), jobs=tuple(job or ())))
    if recording is not None:
        name = _read(recording, collector)
        _print(collector.diagram(), form, name)
        return
    is_chosen = collector.is_chosen and duration is None
    if last_s is not None or (is_chosen and _has_past(project, file)):
        name = _read_past(project, file, last_s, collector)
        _print(collector.diagram(), form, name)
        return
    attachment = choose(project, file)
    try:
        call(attachment, lambda client: _follow(client, collector, duration))
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")
    finally:
        _print(collector.diagram(), form, attachment.project)
        console.flush()  # what is gathered when Ctrl-C ends a command is dropped


def _has_past(name: str | None, files: list[Path] | None) -> bool:
    """Whether messages of the project are kept."""
    from pbus.errors import NothingRunningError
    from pbus.process.project.history.traffic_history import has_traffic
    from pbus_cli.call.kept_project import kept_project

    try:
        project, _ = kept_project(name, files)
    except NothingRunningError:
        return False  # told by the attempt to follow it
    return has_traffic(project)


def _read_past(
    name: str | None, files: list[Path] | None, last_s: float | None, collector: "SequenceCollector"
) -> str:
    """Collect from what a project keeps, of the last seconds or all; returns its name."""
    import time

    from pbus.client.traffic.kept_traffic import read_past, read_states
    from pbus.client.traffic.message_filter import Filter
    from pbus_cli.call.kept_project import kept_project
    from pbus_cli.call.past_messages import refuse_without_traffic

    project, _ = kept_project(name, files)
    refuse_without_traffic(project)
    since = 0.0 if last_s is None else time.time() - last_s
    missed = 0
    for one in read_past(project, Filter(), lambda at: at >= since):
        missed += one.missed
        if one.message is not None:
            collector.add(one.message)
    for change in read_states(project):
        if change.time >= since:
            collector.add(change)
    if missed:
        console.warn(f"{missed:,} messages passed unseen: it is not complete")
    return project.name


def _read(path: Path, collector: "SequenceCollector") -> str:
    """Collect from a recording; returns the name of its project."""
    from pbus.client.recordings.recording_file import read_recording

    found = read_recording(path)
    if found.incomplete:
        console.warn(f"{path} is INCOMPLETE: {found.incomplete}")
    for message in found.messages:
        collector.add(message.as_seen())
    return found.head.project


async def _follow(
    client: "Client", collector: "SequenceCollector", duration_s: float | None
) -> None:
    from pbus.client.traffic.message_filter import Filter

    async with client.follow(Filter()) as messages:
        if sys.stderr.isatty():
            ends = "Ctrl-C shows the diagram" if duration_s is None else f"for {duration_s:g} s"
            console.note(f"following {client.project} ({ends})")
        try:
            await messages.read(collector.add, duration_s)
        finally:
            if messages.missed:
                console.warn(f"{messages.missed:,} messages passed unseen: it is not complete")


def _print(diagram: "SequenceDiagram", form: SequenceFormat, title: str) -> None:
    if diagram.left_out:
        console.warn(f"only the newest are shown: {diagram.left_out:,} earlier steps were left out")
    if not diagram.steps:
        console.note("nothing of it was seen")
        return
    match form:
        case SequenceFormat.SVG:
            from pbus_cli.views.sequences.sequence_svg import sequence_svg

            console.say(sequence_svg(diagram, title))
        case SequenceFormat.MERMAID:
            from pbus_cli.views.sequences.sequence_mermaid import mermaid_lines

            console.say("\n".join(mermaid_lines(diagram)))
        case SequenceFormat.TEXT:
            from pbus_cli.views.sequences.sequence_text import sequence_lines

            has_unicode = console.is_unicode(sys.stdout)
            console.say("\n".join(sequence_lines(diagram, has_unicode=has_unicode)))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(seq)
