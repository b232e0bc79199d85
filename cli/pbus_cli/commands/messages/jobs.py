"""`pbus jobs`: the open jobs of a project."""

from typing import TYPE_CHECKING

import typer

from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.client import OpenJobsResult


def jobs(project: ProjectName = None, file: TopologyFiles = None, as_json: AsJson = False) -> None:
    """List the open jobs: requester, worker, name, age and progress.

    Asks all runners, for up to a second, and names those that did not answer.
    """
    from pbus_cli.call.attach import call, choose

    attachment = choose(project, file)
    found = call(attachment, lambda client: client.open_jobs())
    if as_json:
        from pbus_cli.views.tables.job_table import job_fields

        console.say_json({
            "project": attachment.project,
            "jobs": [job_fields(entry) for entry in found.jobs],
            "silent": found.silent,
        })
        return
    _print(found)
    for one in found.silent:
        console.warn(f"{one.runner} ({', '.join(one.workers)}) did not answer")


def _print(found: "OpenJobsResult") -> None:
    from pbus_cli.views.tables.job_table import job_lines

    if not found.jobs:
        console.note("no open jobs")
        return
    if not console.is_terminal():
        console.say("\n".join(line.plain.rstrip() for line in job_lines(found.jobs)))
        return
    from pbus_cli.live.terminal_console import terminal_console

    screen = terminal_console()
    for line in job_lines(found.jobs, screen.width):
        screen.print(line, end="\n", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(jobs)
