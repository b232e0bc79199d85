"""`pbus mcp`: the verbs as tools for coding assistants."""

import typer

from pbus_cli.input.options import ProjectName, TopologyFiles


def mcp(project: ProjectName = None, file: TopologyFiles = None) -> None:
    """Serve tools by the Model Context Protocol over stdin and stdout, until stdin ends.

    ps, logs, events, tail, stats, jobs, dlq and graph look; restart and send act. The project is
    looked for at each call, so it may start later, or again. Needs the extra `mcp`.

    Example, as an entry of a client's configuration: {"command": "pbus", "args": ["mcp", "-f", "topology.yaml"]}
    """
    from pbus.errors import McpMissingError
    from pbus_cli.call.run_command import run

    try:
        from pbus_cli.tools.tool_server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mcp":
            raise
        raise McpMissingError from error
    from pbus_cli.tools.tool import ProjectChoice

    run(serve(ProjectChoice(project, file)))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(mcp)
