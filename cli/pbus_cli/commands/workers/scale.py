"""`pbus scale`: other numbers of replicas while a project runs."""

import re
from typing import Annotated, Final

import typer

from pbus_cli.input.completing import replicated_names
from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles

_WISH: Final = re.compile(r"([^=]+)=([+-]?[0-9]+)")
_READY_S: Final = 60.0


def scale(
    wishes: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKER=N",
            help="How many replicas of which worker.",
            autocompletion=replicated_names,
        ),
    ],
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0, help="Seconds until giving up.")
    ] = _READY_S,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Run other numbers of replicas, until the next `pbus up` takes those of the topology.

    A replica that leaves is deactivated, finishes its jobs and what waits for it, and ends.

    Example: pbus scale stt=4 agent=2
    """
    from pbus_cli.call.apply_changes import How, scale_replicas
    from pbus_cli.call.attach import choose, names_as

    counts = dict(map(_parse, wishes))
    how = How(action="scale", timeout_s=timeout, as_json=as_json)
    with names_as("WORKER=N"):
        code = scale_replicas(choose(project, file), counts, how)
    if code:
        raise typer.Exit(code)


def _parse(wish: str) -> tuple[str, int]:
    found = _WISH.fullmatch(wish)
    if found is None:
        problem = f"{wish!r}: expected the name of a worker, = and a number, as in stt=4"
        raise typer.BadParameter(problem, param_hint="WORKER=N")
    return found[1], int(found[2])


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(scale)
