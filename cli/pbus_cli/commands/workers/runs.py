"""`pbus runs`: the runs of a project, also of one that is stopped."""

import time
from typing import Annotated

import typer

from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console


def runs(
    count: Annotated[
        int, typer.Option("-n", "--count", metavar="N", min=1, help="How many of the newest.")
    ] = 20,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """List the runs of a project: begin, end, how it ended, workers and restarts.

    JSON: project and runs, oldest first; times in Unix seconds, null for what is not known.
    """
    from pbus.process.project.history.run_history import count_workers, read_events
    from pbus_cli.call.kept_project import kept_project, kept_runs

    kept, _ = kept_project(project, file)
    found = kept_runs(kept)[-count:]
    try:
        found = count_workers(found, read_events(kept))
    except OSError as error:
        console.warn(f"workers and restarts are not known: {error}")
    if as_json:
        console.say_json({"project": kept.name, "runs": found})
    elif not found:
        console.note(f"no run of {kept.name} is kept here")
    else:
        from shutil import get_terminal_size

        from pbus_cli.views.run_lines import run_lines

        width = get_terminal_size().columns if console.is_terminal() else None
        console.say("\n".join(line.plain.rstrip() for line in run_lines(found, time.time(), width)))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(runs)
