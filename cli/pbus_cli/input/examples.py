"""The example projects that the package carries, for `pbus init`."""

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import msgspec

from pbus.errors import PbusError
from pbus.topology.json_schema import topology_schema

SCHEMA_FILE: Final = "topology.schema.json"  # as the first line of every example's topology says


class FilesExistError(PbusError):
    """Files are in the way of an example."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        verb = "exists" if len(names) == 1 else "exist"
        super().__init__(
            f"nothing written to {folder}: {', '.join(names)} {verb} already",
            hint="give another folder, or overwrite with --force",
        )


def example_names() -> list[str]:
    """The names of all examples."""
    return sorted(entry.name for entry in _templates().iterdir() if _files_of(entry))


def write_example(name: str, folder: Path, *, force: bool) -> list[str]:
    """Write an example into a folder, all of it or nothing; returns the names of the files.

    Raises:
        FilesExistError: It would overwrite something, and need not.
    """
    contents = {entry.name: entry.read_bytes() for entry in _files_of(_templates() / name)}
    contents[SCHEMA_FILE] = schema_text()
    if not force and (present := [file for file in contents if (folder / file).exists()]):
        raise FilesExistError(folder, present)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return list(contents)


def schema_text() -> bytes:
    """The schema of topologies as a file."""
    return msgspec.json.format(msgspec.json.encode(topology_schema()), indent=2) + b"\n"


def _templates() -> Traversable:
    return files("pbus_cli") / "templates"


def _files_of(example: Traversable) -> list[Traversable]:
    """Without what Python leaves behind where packages are compiled."""
    if not example.is_dir():
        return []
    return sorted((entry for entry in example.iterdir() if entry.is_file()), key=lambda e: e.name)
