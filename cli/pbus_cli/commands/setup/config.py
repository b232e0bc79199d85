"""`pbus config`: a topology as pbus understands it."""

import os

import typer

from pbus_cli.input.options import AsJson, FileArgument, MergedFiles, merged_files
from pbus_cli.terminal import console


def config(
    topology: FileArgument = None, file: MergedFiles = None, as_json: AsJson = False
) -> None:
    """Print a topology as pbus understands it: files merged, variables expanded, secrets masked.

    Defaults are filled in. It is YAML, and a topology again but for what is masked (`***`); what is
    empty is left out. With
    --json one object, every key of it present, as `pbus validate --json` has it.

    Example: pbus config staging.yaml | less
    """
    from pbus.topology import describe, load_topology

    described = describe(load_topology(merged_files(topology, file), os.environ))
    if as_json:
        console.say_json(described)
        return
    from pbus.topology.yaml_text import yaml_text

    console.say(yaml_text(described).rstrip("\n"))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(config)
