"""`pbus completion`: the script that lets a shell complete."""

import enum
import os
from pathlib import Path
from typing import Annotated

import typer

from pbus_cli.terminal import console

COMPLETE_VARIABLE = "_PBUS_COMPLETE"


class Shell(enum.StrEnum):
    """The shells there are scripts for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[
        Shell | None,
        typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default="your own"),
    ] = None,
) -> None:
    """Print the script for a shell: verbs, options, live workers, jobs and types complete then.

    bash, zsh: eval "$(pbus completion)" in ~/.bashrc or ~/.zshrc; fish: pbus completion fish
    | source in config.fish.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    chosen = shell or _own_shell()
    console.say(
        get_completion_script(
            prog_name="pbus", complete_var=COMPLETE_VARIABLE, shell=chosen.value
        ).strip()
    )


def _own_shell() -> Shell:
    """The user's.

    Raises:
        typer.BadParameter: There is no script for it.
    """
    name = Path(os.environ.get("SHELL", "")).name
    try:
        return Shell(name)
    except ValueError:
        problem = f"there is none for {name or 'an unknown shell'}: say bash, zsh or fish"
        raise typer.BadParameter(problem, param_hint="SHELL") from None


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(completion)
