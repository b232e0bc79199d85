"""The command tree; what a command needs is imported when it runs, so that --help is fast."""

import os
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from pbus_cli.commands.messages import (
    cancel,
    dlq,
    jobs,
    purge,
    record,
    replay,
    send,
    seq,
    stats,
    tail,
)
from pbus_cli.commands.project import attach, down, ls, top, up
from pbus_cli.commands.setup import (
    bench,
    completion,
    config,
    doctor,
    graph,
    init,
    mcp,
    schema,
    validate,
)
from pbus_cli.commands.workers import (
    events,
    logs,
    postmortem,
    ps,
    restart,
    run,
    runs,
    scale,
    stack,
    start,
    stop,
)
from pbus_cli.input.options import ProjectName, TopologyFiles
from pbus_cli.terminal import console

_COMMANDS: Final = (
    up,
    attach,
    top,
    run,
    ps,
    send,
    jobs,
    cancel,
    tail,
    seq,
    record,
    replay,
    stats,
    logs,
    events,
    runs,
    postmortem,
    stack,
    restart,
    scale,
    stop,
    start,
    down,
    ls,
    dlq,
    purge,
    validate,
    config,
    graph,
    doctor,
    schema,
    init,
    completion,
    mcp,
    bench,
)


class _Verbs(TyperGroup):
    """The verbs; whatever ends one becomes a text and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was chosen."""
        with console.exit_codes():
            return super().invoke(ctx)


app = typer.Typer(
    name="pbus",
    cls=_Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's way
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - keeps --help fast

        console.say(f"pbus {version('pbus-orchestrator')}")
        raise typer.Exit


@app.callback()
def _pbus(
    context: typer.Context,
    project: ProjectName = None,
    file: TopologyFiles = None,
    version: Annotated[  # noqa: ARG001, FBT002 - a flag whose callback does the work
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run a topology of worker processes on one message bus, and see what they say.

    Exit codes: 0 done, 1 failed, 2 bad usage or file, 3 nothing running or broker unreachable,
    4 timed out, 130 Ctrl-C, 143 SIGTERM.
    """
    given: dict[str, Any] = {} if project is None else {"project": project}
    if file:
        given["file"] = [str(one) for one in file]
    context.default_map = {command.__name__.rpartition(".")[2]: given for command in _COMMANDS}
    context.default_map["dlq"] = dict.fromkeys(dlq.VERBS, given)


for _command in _COMMANDS:
    _command.register(app)


def main() -> None:
    """Run `pbus`."""
    console.have_streams()
    if completion.COMPLETE_VARIABLE in os.environ:  # a shell asks: then typer has to know shells
        from typer.completion import (  # type: ignore[attr-defined]  # noqa: PLC0415 - when needed
            completion_init,
        )

        completion_init()
    with console.written_out():
        app(prog_name="pbus")
