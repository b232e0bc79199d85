"""`pbus stack`: what the threads and tasks of a worker are doing."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pbus_cli.input.completing import worker_names
from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.client.stacks import WorkerStacks


def stack(
    worker: Annotated[
        str,
        typer.Argument(
            metavar="WORKER",
            help="A worker; the name of replicas means all of them.",
            autocompletion=worker_names,
        ),
    ],
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Show the stacks of a worker's threads and tasks, also while its event loop is blocked.

    The worker goes on; it must run on this machine and belong to you.
    """
    from pbus.client.stacks import stacks_of
    from pbus_cli.call.attach import names_as
    from pbus_cli.call.run_command import run
    from pbus_cli.views.stack_lines import stack_lines

    with names_as("WORKER"):
        found = run(stacks_of(worker, project, file))
    if as_json:
        console.say_json({"workers": [_as_json(one) for one in found]})
    for number, one in enumerate(found):
        if one.error is not None:
            console.fail(f"{one.worker}: {one.error}", one.hint)
        elif not as_json:
            console.say("\n" * bool(number) + "\n".join(stack_lines(one)))
    if any(one.error is not None for one in found):
        raise typer.Exit(console.FAILED)


def _as_json(found: "WorkerStacks") -> dict[str, Any]:
    stacks = found.stacks
    return {
        "worker": found.worker,
        "pid": found.pid,
        "host": found.host,
        "threads": [] if stacks is None else stacks.threads,
        "tasks": None if stacks is None else stacks.tasks,
        "left_out": 0 if stacks is None else stacks.left_out,
        "error": found.error,
    }


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(stack)
