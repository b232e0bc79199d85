"""Merges two trees of YAML, of which the second wins."""

from typing import Final

from pbus.topology.check import is_null
from pbus.topology.parsing.nodes import Entry, Mapping, Node, mapping_of

Path = tuple[str, ...]  # of keys, from the top of the file

_PROGRAMS: Final = frozenset({"worker", "command"})
_PROBES: Final = frozenset({"log", "http", "tcp", "exec", "notify", "bus"})


def merged(base: Mapping, over: Mapping, path: Path = ()) -> Mapping:
    """The keys of both; where both have a key, two maps are merged, all else is replaced.

    A key that `over` leaves empty removes that of `base`. Of keys that exclude each other (a class
    or a program; the kinds of a probe) those of `base` give way.

    Args:
        base: The first tree. Merged maps stay on its lines.
        over: The tree that wins.
        path: The place of both in the file.
    """
    entries = {
        key: entry for key, entry in base.entries.items() if key not in _displaced(over, path)
    }
    for key, entry in over.entries.items():
        there = entries.get(key)
        if there is None:
            entries[key] = entry
        elif is_null(entry.node):
            del entries[key]
        else:
            entries[key] = _entry(there, entry, (*path, key))
    return mapping_of(base.line, entries)


def _entry(there: Entry, entry: Entry, path: Path) -> Entry:
    if isinstance(there.node, Mapping) and isinstance(entry.node, Mapping):
        return Entry(there.line, merged(there.node, entry.node, path))
    return entry


def _displaced(over: Mapping, path: Path) -> frozenset[str]:
    """The keys that cannot stand beside those of `over`."""
    match path:
        case ("workers", _):
            alternatives = _PROGRAMS
        case ("workers", _, "ready" | "health"):
            alternatives = _PROBES
        case _:
            return frozenset()
    given = {key for key in alternatives & over.entries.keys() if not _is_empty(over, key)}
    return alternatives - given if given else frozenset()


def _is_empty(tree: Mapping, key: str) -> bool:
    return is_null(tree.entries[key].node)


def without(tree: Mapping, key: str) -> Mapping:
    """The tree without a key."""
    if key not in tree.entries:
        return tree
    return mapping_of(tree.line, {one: at for one, at in tree.entries.items() if one != key})


def is_same(one: Node, other: Node) -> bool:
    """Whether two nodes say the same, wherever they stand."""
    return _plain(one) == _plain(other)


def _plain(node: Node) -> object:
    match node:
        case Mapping(entries=entries):
            return {key: _plain(entry.node) for key, entry in entries.items()}
        case _ if hasattr(node, "items"):
            return [_plain(item) for item in node.items]
    return (getattr(node, "text", None), getattr(node, "plain", None))
