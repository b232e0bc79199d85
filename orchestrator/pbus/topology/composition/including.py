"""A file with the files that it includes, as one tree."""

from collections.abc import Iterator
from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import Final

from pbus.topology.check import check_type
from pbus.topology.composition.composition_schema import Include
from pbus.topology.composition.merging import is_same, without
from pbus.topology.composition.source_files import SourceFiles, identity
from pbus.topology.parsing.nodes import Entry, Mapping, Node, Scalar, Sequence, mapping_of
from pbus.topology.parsing.variables import expand_tree
from pbus.topology.problems import Place, Problems
from pbus.topology.schema import EXTENSION_PREFIX

_INCLUDE: Final = "include"
_OWN: Final = ("name", _INCLUDE)  # keys that an included file does not add
Keys = tuple[str, ...]  # from the top of the file


class Inclusion:
    """Reads files with what they include; each is included once.

    Args:
        sources: Reads single files.
        environ: The values of ``${VAR}`` in names of files.
        problems: Collects the problems.
    """

    def __init__(
        self, sources: SourceFiles, environ: AbstractMapping[str, str], problems: Problems
    ) -> None:
        self._sources = sources
        self._environ = environ
        self._problems = problems
        self._seen: set[str] = set()

    def tree(self, file: Path, outer: tuple[Path, ...] = ()) -> Mapping | None:
        """The tree of a file; None where it has none, whose problem was added.

        Args:
            file: The file.
            outer: The files that are being read because of an `include`.

        Raises:
            ValueError: The file itself cannot be read.
        """
        own = self._sources.read(file)
        self._seen.add(identity(file))
        if own is None:
            return None
        whole = mapping_of(own.line, {})
        for inner, place in self._included(file, own):
            part = self._part(inner, place, (*outer, file))
            whole = whole if part is None else self._joined(whole, _added(part))
        return self._joined(whole, without(own, _INCLUDE))

    def _included(self, file: Path, own: Mapping) -> Iterator[tuple[Path, Place]]:
        """The files that a file includes, with the places that name them."""
        entry = own.entries.get(_INCLUDE)
        if entry is None:
            return
        place = Place(entry.line, _INCLUDE)
        node = expand_tree(entry.node, self._environ, self._problems, place)
        names = check_type(node, Include, place, self._problems) or ()
        items = node.items if isinstance(node, Sequence) else ()
        places = [place.item(index, item.line) for index, item in enumerate(items)] or [place]
        for name, at in zip(names, places, strict=False):  # an empty list has no name
            yield file.parent / name, at

    def _part(self, file: Path, place: Place, outer: tuple[Path, ...]) -> Mapping | None:
        """An included file; None where it was included before, or has a problem."""
        key = identity(file)
        above = [identity(one) for one in outer]
        if key in above:
            cycle = [*outer[above.index(key) :], file]
            shown = " → ".join(map(str, cycle))
            self._problems.add(place, f"these files include each other: {shown}")
        elif key not in self._seen:
            try:
                return self.tree(file, outer)
            except ValueError as error:
                self._problems.add(place, f"the file {file} cannot be read: {error}")
        return None

    def _joined(self, one: Mapping, other: Mapping, keys: Keys = (), above: str = "") -> Mapping:
        """The keys of both; a problem is added for each that both have and that differs."""
        entries = dict(one.entries)
        for key, entry in other.entries.items():
            there = entries.get(key)
            at = Place(other.line, above).key(key, entry.line)
            entries[key] = entry if there is None else self._entry(there, entry, (*keys, key), at)
        return mapping_of(other.line, entries)

    def _entry(self, there: Entry, entry: Entry, keys: Keys, place: Place) -> Entry:
        one, other = there.node, entry.node
        match keys:
            case ("workers", _):
                self._clashes(there, place, "another worker has this name")
            case ("env_file",):
                return Entry(entry.line, Sequence(entry.line, (*_items(one), *_items(other))))
            case _ if isinstance(one, Mapping) and isinstance(other, Mapping):
                return Entry(there.line, self._joined(one, other, keys, place.path))
            case _ if not (keys[0].startswith(EXTENSION_PREFIX) or is_same(one, other)):
                self._clashes(there, place, "another value is given")
        return entry

    def _clashes(self, there: Entry, place: Place, what: str) -> None:
        where = self._problems.shown(there.line, beside=place.line)
        self._problems.add(
            place, f"{what} in {where}, which is included: only a file given with -f may change it"
        )


def _added(part: Mapping) -> Mapping:
    """The keys of an included file that count in the file that includes it."""
    for key in _OWN:
        part = without(part, key)
    return part


def _items(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Sequence):
        return node.items
    return (node,) if isinstance(node, Scalar) else ()
