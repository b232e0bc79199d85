"""`pbus schema`: the JSON Schema of a topology file, for editors."""

import typer

from pbus_cli.terminal import console


def schema() -> None:
    """Print the JSON Schema of a topology file.

    Save it and put `# yaml-language-server: $schema=FILE` on the first line of a topology: editors
    then check, complete and explain every key. `pbus init` does both.
    """
    from pbus.topology.json_schema import topology_schema

    console.say_json(topology_schema(), indent=True)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(schema)
