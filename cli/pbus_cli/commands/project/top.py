"""`pbus top`: the live display of a project, with its edges first."""

import typer

from pbus_cli.input.options import LogLines, Plain, ProjectName, TopologyFiles


def top(
    project: ProjectName = None,
    file: TopologyFiles = None,
    lines: LogLines = 100,
    plain: Plain = False,
) -> None:
    """Show live what workers send each other and how fast, beside workers, traffic, logs and jobs.

    The display of `pbus up` and `pbus attach`, beginning with the edges: ? explains keys and signs.
    Leaving it (q, Ctrl-C) leaves the project running.

    Example: pbus up -d && pbus top
    """
    from pbus_cli.call.look_on import look_on
    from pbus_cli.views.board.arrangement import Focus

    look_on(project, file, lines, is_plain=plain, focus=Focus("edges"))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(top)
