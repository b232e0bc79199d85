"""`pbus validate`: says whether a topology is right, without starting anything."""

import os
from typing import TYPE_CHECKING

import typer

from pbus_cli.input.options import DEFAULT_FILE, AsJson, FileArgument
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.settings import BusSettings


def validate(file: FileArgument = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Check a topology file; every problem is shown at once."""
    from pbus.errors import TopologyError
    from pbus.topology import describe, load_topology
    from pbus_cli.launch.advice import warn_of_open_bus

    try:
        topology = load_topology(file, os.environ)
    except TopologyError as error:
        if as_json:
            problems = list(error.problems)
            console.say_json({"ok": False, "file": str(error.file), "problems": problems})
        raise
    warn_of_open_bus(topology.bus)
    if as_json:
        console.say_json({"ok": True, "problems": [], **describe(topology)})
        return
    workers, processes = len(topology.workers), len(topology.instances())
    console.say(
        f"{file} is right: topology {topology.name!r}, {_count(workers, 'worker')}, "
        f"{_count(processes, 'process')}, on {_bus(topology.bus)}"
    )


def _bus(bus: "BusSettings") -> str:
    from pbus.urls import mask_url

    if bus.url is not None:
        return mask_url(bus.url)
    return f"an embedded {'Postgres' if bus.backend == 'pgmq' else 'Valkey'}"


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}es" if noun.endswith("s") else f"{number} {noun}s"


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(validate)
