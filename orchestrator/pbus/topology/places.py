"""The places of keys in a tree."""

from pbus.topology.parsing.nodes import Mapping
from pbus.topology.problems import Place


def locate(tree: Mapping, *keys: str) -> Place:
    """The place of a key path; of its parent's line where the key is absent."""
    place = Place(tree.line, "")
    node = tree
    for key in keys:
        entry = node.entries.get(key)
        place = place.key(key, entry.line if entry else place.line)
        node = entry.node if entry and isinstance(entry.node, Mapping) else Mapping(place.line, {})
    return place
