"""Topologies out of text, and the problems of wrong ones."""

from collections.abc import Mapping
from pathlib import Path

from pbus.errors import TopologyError
from pbus.topology import Topology, load_topology

WORKER = "workers:\n  a: {worker: 'workers:Greeter'}\n"


def load_text(folder: Path, text: str | bytes, **environ: str) -> Topology:
    """Load a topology that stands in `folder` for the length of the test."""
    return load_topology(write_topology(folder, text), environ)


def write_topology(folder: Path, text: str | bytes) -> Path:
    """Write the text where a topology is looked for."""
    file = folder / "topology.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def problems_of(folder: Path, text: str | bytes, **environ: str) -> list[str]:
    """Every problem of a wrong topology, file names without their folder."""
    return problems_of_file(write_topology(folder, text), environ)


def problems_of_file(file: Path, environ: Mapping[str, str]) -> list[str]:
    """Likewise, of a file that stands somewhere (or nowhere)."""
    try:
        load_topology(file, environ)
    except TopologyError as error:
        if not error.problems:
            message = "an error without problems"
            raise ValueError(message) from error
        folder = str(file.parent) + "/"
        return [problem.replace(folder, "") for problem in error.problems]
    return []
