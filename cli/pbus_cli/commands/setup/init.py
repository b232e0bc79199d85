"""`pbus init`: writes a small project to begin with."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pbus_cli.input.completing import example_names
from pbus_cli.terminal import console

_HERE = Path()


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where; made if need be.", show_default=".")
    ] = _HERE,
    example: Annotated[
        str,
        typer.Option(
            "--example",
            metavar="NAME",
            help="What: hello (two workers), jobs (more) or voice (a telephone service).",
            autocompletion=example_names,
        ),
    ] = "hello",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
) -> None:
    """Write a topology that works, its workers and a test of them, and a schema for editors."""
    from pbus.names import unknown_name
    from pbus.topology.paths import is_same_place, working_folder
    from pbus_cli.input import examples
    from pbus_cli.input.name_hints import unknown_text

    names = examples.example_names()
    if example not in names:
        raise typer.BadParameter(
            unknown_text(unknown_name("example", example, names)), param_hint="--example"
        )
    for file in examples.write_example(example, folder, force=force):
        console.note(f"wrote {folder / file}")
    enter = "" if is_same_place(folder, working_folder()) else f"cd {shlex.quote(str(folder))} && "
    console.note(f"start it: {enter}pbus up")
    console.note(f"test it:  {enter}python -m pytest")


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(init)
