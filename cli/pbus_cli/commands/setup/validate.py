"""`pbus validate`: says whether a topology is right, without starting anything."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.options import AsJson, FileArgument, MergedFiles, merged_files
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pbus.settings import BusSettings
    from pbus.topology import Topology


def validate(
    topology: FileArgument = None,
    file: MergedFiles = None,
    as_json: AsJson = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Import the workers' modules, too, which runs their code."),
    ] = False,
) -> None:
    """Check a topology file, and the code that it names; every problem is shown at once.

    Nothing is imported: modules are read. Found are modules, classes and programs that are not
    there, and arguments that a class does not take or that are missing. What reading cannot tell
    (star imports, classes made at run time) is no problem; --strict tells.

    Example: pbus validate --strict staging.yaml
    """
    from pbus.errors import TopologyError
    from pbus.topology import describe
    from pbus.topology.policy.shared_process import processes_of
    from pbus_cli.launch.advice import warn_of_open_bus

    files = merged_files(topology, file)
    try:
        checked = _checked(files, is_strict=strict)
    except TopologyError as error:
        if as_json:
            problems = list(error.problems)
            console.say_json({"ok": False, "file": str(error.file), "problems": problems})
        raise
    warn_of_open_bus(checked.bus)
    if as_json:
        console.say_json({"ok": True, "problems": [], **describe(checked)})
        return
    workers, processes = len(checked.workers), len(processes_of(checked.instances()))
    shown, verb = ", ".join(map(str, files)), "is" if len(files) == 1 else "are"
    console.say(
        f"{shown} {verb} right: topology {checked.name!r}, {_count(workers, 'worker')}, "
        f"{_count(processes, 'process')}, on {_bus(checked.bus)}"
    )


def _checked(files: "Sequence[Path]", *, is_strict: bool) -> "Topology":
    from pbus.errors import TopologyError
    from pbus.topology import load_topology
    from pbus.topology.code.check_code import code_problems, problems_beside, refuse_problems

    try:
        topology = load_topology(files, os.environ)
    except TopologyError as error:
        raise problems_beside(error, files, os.environ) from None
    found = code_problems(topology, os.environ)
    if is_strict:
        from pbus.process.strict_check import check_by_import

        found = check_by_import(topology, os.environ, found)
    refuse_problems(files, os.environ, found)
    return topology


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
