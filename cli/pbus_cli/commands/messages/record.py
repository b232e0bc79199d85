"""`pbus record`: the messages of a project into a file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.options import Duration, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.client import Attachment
    from pbus.client.recordings.recorder import Recorder


def record(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="*.mcap, or *.jsonl for JSON lines."),
    ],
    duration: Duration = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Record all messages until Ctrl-C, or --for so long, for `pbus replay` and `pbus seq --from`.

    The file is complete, or it says INCOMPLETE and ends with 1. Foxglove opens files of MCAP.
    """
    from pbus.client.recordings.recorder import Recorder
    from pbus.client.recordings.recording_file import check_ending
    from pbus_cli.call.attach import choose

    check_ending(output)
    attachment = choose(project, file)
    recorder = Recorder(output, attachment.project)
    problem = "it was not ended in order"
    try:
        problem = _run(recorder, attachment, duration)
    except BaseException:
        console.warn(f"{output} is INCOMPLETE: {problem}")
        raise
    finally:
        end = recorder.finish(problem)
    if end.missed or end.reason:
        reason = end.reason or f"{end.missed:,} messages passed unseen"
        console.fail(f"{output} is INCOMPLETE: {reason}", "record again, with less to do beside it")
        raise typer.Exit(1)
    console.note(f"{output} has {end.messages:,} messages of {attachment.project}")


def _run(recorder: "Recorder", attachment: "Attachment", duration_s: float | None) -> str:
    """Record; returns why the recording is not complete, "" where it is."""
    from pbus.errors import NothingRunningError
    from pbus_cli.call.attach import call

    if sys.stderr.isatty():
        console.note(f"recording {attachment.project} (Ctrl-C ends it)")
    try:
        call(attachment, lambda client: recorder.run(client, duration_s))
    except (KeyboardInterrupt, console.TerminatedError):
        return ""
    except NothingRunningError:
        return f"{attachment.project} has stopped meanwhile"
    return ""


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(record)
