"""`pbus attach`: the live display of a project that runs in the background."""

import typer

from pbus_cli.input.options import LogLines, Plain, ProjectName, TopologyFiles


def attach(
    project: ProjectName = None,
    file: TopologyFiles = None,
    lines: LogLines = 100,
    plain: Plain = False,
) -> None:
    """Show what `pbus up` shows of a project that runs already, in the background or elsewhere here.

    Leaving it (q, Ctrl-C) leaves the project running; it ends when the project does. Any number may be
    attached at once.

    Example: pbus up -d && pbus attach
    """
    from pbus_cli.call.look_on import look_on

    look_on(project, file, lines, is_plain=plain)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(attach)
