"""The log files of workers by their names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from pbus.errors import TopologyError
from pbus.names import stands_for, unknown_name
from pbus.process.project.project import Project
from pbus.topology import load_topology
from pbus.topology.policy.shared_process import process_names
from pbus_cli.input.name_hints import unknown_text


def log_paths(project: Project, names: Sequence[str]) -> Mapping[str, Path]:
    """The log files of the workers named, replicas by their common name too.

    Raises:
        typer.BadParameter: A name stands for nothing.
    """
    processes = _processes(project)
    logs = {*project.log_paths(), *processes.values()}
    paths = {name: project.log_path(name) for name in sorted(logs)}
    if not names:
        return paths
    known = {name: name for name in paths} | processes
    chosen: dict[str, Path] = {}
    for name in names:
        found = {log: paths[log] for key, log in known.items() if stands_for(name, key)}
        if not found:
            raise typer.BadParameter(
                unknown_text(unknown_name("worker", name, known)), param_hint="WORKER"
            )
        chosen |= found
    return chosen


def _processes(project: Project) -> dict[str, str]:
    """Workers of the topology, which may not have written anything yet, with their processes.

    Workers of one process have the log of the first.
    """
    try:
        topology = load_topology((project.file, *project.overrides), os.environ)
    except TopologyError:  # edited since: the logs are there all the same
        return {}
    return process_names(topology)
