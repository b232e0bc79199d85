"""`pbus run`: one worker or one program in the foreground, on the project's bus."""

import os
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from pbus_cli.input.completing import worker_names
from pbus_cli.input.options import ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pbus.client.one_off import OneOff
    from pbus.process.system.launch_plan import Launch

_GIVEN: Final = "pbus.run.given"


class _RunCommand(TyperCommand):
    """Keeps the words as given: click drops the `--` that tells a program from a worker."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words."""
        ctx.meta[_GIVEN] = tuple(args)
        return super().parse_args(ctx, args)


def run(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKER | -- COMMAND...",
            help="A worker of the topology, or a program and its arguments.",
            autocompletion=worker_names,
        ),
    ],
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Run one worker or one program in the foreground, with the project's environment and bus.

    A WORKER runs under its own name with its args, env and folder, so it must not run already
    (`pbus stop WORKER`); of replicas, the first that does not run, or one more. A COMMAND runs in
    this folder with the PBUS_ variables, by which pbus.client.connect() finds the bus. Both have this
    terminal, get the signals that are sent to pbus, and end with the project.

    A project that does not run is not started, but for its embedded broker, which ends with the run:
    workers that are needed have to be up (`pbus up -d`).

    The exit code is that of the worker or program; 128 and the signal's number where a signal ended
    it.

    Example: pbus run -- python import_customers.py
    """
    given = context.meta[_GIVEN]
    is_command = len(given) > len(words) and given[-len(words) - 1] == "--"
    if not is_command and len(words) > 1:
        message = "one worker at a time; a program and its arguments come after --"
        raise typer.BadParameter(message, param_hint="WORKER")
    code = _run(words, project, file or (), is_command=is_command)
    if code:
        raise typer.Exit(code)


def _run(
    words: "Sequence[str]", project: str | None, files: "Sequence[Path]", *, is_command: bool
) -> int:
    from pbus.client.one_off import command_launch, joined
    from pbus.process.launch_errors import explain
    from pbus.process.system.terminal_job import run_in_foreground
    from pbus_cli.call import run_command
    from pbus_cli.call.attach import names_as

    async def main() -> int:
        async with joined(project, files, os.environ) as one_off:
            if is_command:
                launch = command_launch(one_off, words, os.environ)
            else:
                launch = _worker(one_off, words[0])
            try:
                return await run_in_foreground(launch)
            except OSError as error:
                raise explain(launch, error) from error

    with names_as("WORKER"):
        return run_command.run(main())


def _worker(one_off: "OneOff", name: str) -> "Launch":
    from pbus.client.one_off import worker_launch

    launch = worker_launch(one_off, name, os.environ)
    spec = one_off.topology.workers.get(name.partition(".")[0])
    if one_off.is_alone and spec is not None and spec.depends_on:
        needed = ", ".join(one.worker for one in spec.depends_on)
        console.note(
            f"{one_off.environment.project} does not run: nor does what {name} needs, {needed}"
        )
    return launch


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(cls=_RunCommand, context_settings={"allow_interspersed_args": False})(run)
