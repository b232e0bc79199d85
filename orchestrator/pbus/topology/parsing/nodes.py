"""The nodes of a YAML tree: values with the lines that they stand on."""

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct

from pbus.topology.parsing.scalars import kind_of_value, plain_value


class Scalar(Struct, frozen=True):
    """A single value, as text.

    Attributes:
        plain: Without quotes: ``5`` is a number, and an empty text is null.
        written: The text in the file, before expansion; safe to show.
        is_secret: Tagged `!secret`, or holds the value of a variable: never shown.
    """

    line: int
    text: str
    plain: bool
    written: str
    is_secret: bool = False


class Broken(Struct, frozen=True):
    """Takes the place of an invalid value, whose problem was added."""

    line: int


class Sequence(Struct, frozen=True):
    """A list."""

    line: int
    items: "tuple[Node, ...]"
    size: int = 1
    height: int = 1


class Mapping(Struct, frozen=True):
    """A mapping; each key has its own line."""

    line: int
    entries: "dict[str, Entry]"
    size: int = 1
    height: int = 1


class Entry(Struct, frozen=True):
    """A key's line and its value."""

    line: int
    node: "Node"


Node: TypeAlias = Scalar | Sequence | Mapping | Broken


def mapping_of(line: int, entries: dict[str, Entry]) -> Mapping:
    """A mapping of nodes that were made elsewhere, with its size and height."""
    nodes = [entry.node for entry in entries.values()]
    size = 1 + sum(1 + size_of(node) for node in nodes)
    return Mapping(line, entries, size, 1 + max([0, *map(height_of, nodes)]))


def size_of(node: Node) -> int:
    """The number of values and keys in a node, itself included."""
    return node.size if isinstance(node, Sequence | Mapping) else 1


def height_of(node: Node) -> int:
    """Levels of nesting, 1 for a scalar."""
    return node.height if isinstance(node, Sequence | Mapping) else 1


def kind_of(node: Node) -> str:
    """The kind of a node, in the words of a problem; never its value."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Scalar) and node.plain:
        return kind_of_value(plain_value(node.text))
    return "text"


def secret_paths(node: Node, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The key paths of all secret values; items of lists by their index."""
    if isinstance(node, Mapping):
        for key, entry in node.entries.items():
            yield from secret_paths(entry.node, (*path, key))
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from secret_paths(item, (*path, str(index)))
    elif isinstance(node, Scalar) and node.is_secret:
        yield path
