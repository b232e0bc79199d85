"""Paths in a topology of several files: each is relative to the file that it stands in."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from pbus.topology.parsing.nodes import Entry, Mapping, Node, Scalar, Sequence, kind_of
from pbus.topology.paths import as_named
from pbus.topology.problems import Problems

_WORKERS: Final = "workers"
_OF_FILE: Final = frozenset({"env_file"})
_OF_WORKER: Final = frozenset({"env_file", "working_dir", "watch"})


class Origin(NamedTuple):
    """The origin of a worker.

    Attributes:
        folder: Of the file that declares it.
        file: The file that names its class; the one that declares it where there is no class.
    """

    folder: Path
    file: Path


def anchored(tree: Mapping, problems: Problems) -> Mapping:
    """The tree with paths of other files than the first made absolute.

    Args:
        tree: Variables are expanded.
        problems: Of the load: they tell the file of a line.
    """
    if len(problems.files) == 1:
        return tree
    anchor = _anchor(problems)
    tree = _with(tree, _OF_FILE, anchor)
    entry = tree.entries.get(_WORKERS)
    if entry is None or not isinstance(entry.node, Mapping):
        return tree
    workers = {
        name: Entry(one.line, _with(one.node, _OF_WORKER, anchor))
        if isinstance(one.node, Mapping)
        else one
        for name, one in entry.node.entries.items()
    }
    node = msgspec.structs.replace(entry.node, entries=workers)
    return msgspec.structs.replace(
        tree, entries={**tree.entries, _WORKERS: Entry(entry.line, node)}
    )


def workers_of(tree: Mapping) -> Mapping:
    """The workers of a tree; an empty mapping where it has none."""
    entry = tree.entries.get(_WORKERS)
    if entry is not None and isinstance(entry.node, Mapping):
        return entry.node
    return Mapping(tree.line, {})


def origins(tree: Mapping, problems: Problems) -> dict[str, Origin]:
    """The origin of each worker of a checked tree."""
    found = {}
    for name, entry in workers_of(tree).entries.items():
        declared = _file_of(entry.line, problems)
        names_class = entry.node.entries.get("worker") if isinstance(entry.node, Mapping) else None
        file = declared if names_class is None else _file_of(names_class.line, problems)
        found[name] = Origin(declared.parent, file)
    return found


def _file_of(line: int, problems: Problems) -> Path:
    file, _ = problems.source(line)
    return as_named(file.parent) / file.name


def _anchor(problems: Problems) -> Callable[[Scalar], Scalar]:
    first = as_named(problems.file.parent)
    folders = {file: as_named(file.parent) for file in problems.files}

    def anchor(scalar: Scalar) -> Scalar:
        folder = folders[problems.source(scalar.line)[0]]
        if folder == first or not scalar.text or kind_of(scalar) != "text":
            return scalar
        return msgspec.structs.replace(scalar, text=str(folder / scalar.text))

    return anchor


def _with(tree: Mapping, keys: frozenset[str], anchor: Callable[[Scalar], Scalar]) -> Mapping:
    entries = {
        key: Entry(entry.line, _each(entry.node, anchor)) if key in keys else entry
        for key, entry in tree.entries.items()
    }
    return msgspec.structs.replace(tree, entries=entries)


def _each(node: Node, anchor: Callable[[Scalar], Scalar]) -> Node:
    if isinstance(node, Scalar):
        return anchor(node)
    if isinstance(node, Sequence):
        return msgspec.structs.replace(
            node, items=tuple(_each(item, anchor) for item in node.items)
        )
    return node
