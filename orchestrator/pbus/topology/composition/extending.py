"""Workers that extend others: their keys, and those that they have from there."""

from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import Final, NamedTuple, cast

import msgspec

from pbus.topology.check import check_type
from pbus.topology.composition.anchoring import workers_of
from pbus.topology.composition.composition_schema import Extends, ExtendsSection
from pbus.topology.composition.including import Inclusion
from pbus.topology.composition.merging import merged, without
from pbus.topology.composition.source_files import SourceFiles
from pbus.topology.parsing.nodes import Broken, Entry, Mapping, mapping_of
from pbus.topology.parsing.variables import expand_tree
from pbus.topology.problems import Place, Problems, did_you_mean

_KEY: Final = "extends"
_WORKERS: Final = "workers"
MAX_CHAIN: Final = 100


class _Worker(NamedTuple):
    """A worker of a file; None stands for the topology itself."""

    file: Path | None
    name: str

    def __str__(self) -> str:
        return self.name if self.file is None else f"{self.name} in {self.file}"


class Extension:
    """Fills workers in with the keys of those that they extend.

    Args:
        tree: The topology: all files that were given, with what they include.
        sources: Reads the files of `extends`.
        environ: The values of ``${VAR}`` in `extends`.
        problems: Collects the problems.
    """

    def __init__(
        self,
        tree: Mapping,
        sources: SourceFiles,
        environ: AbstractMapping[str, str],
        problems: Problems,
    ) -> None:
        self._tree = tree
        self._sources = sources
        self._environ = environ
        self._problems = problems
        self._workers: dict[Path | None, Mapping] = {None: workers_of(tree)}
        self._bases: dict[_Worker, _Worker | None] = {}
        self._cycles: set[frozenset[_Worker]] = set()

    def whole(self) -> Mapping:
        """The topology without any `extends`."""
        own = self._workers[None]
        if not own.entries:
            return self._tree
        entries = {
            name: Entry(entry.line, self._whole(name, entry.node))
            if isinstance(entry.node, Mapping) and _KEY in entry.node.entries
            else entry
            for name, entry in own.entries.items()
        }
        at = self._tree.entries[_WORKERS].line
        workers = Entry(at, mapping_of(own.line, entries))
        return mapping_of(self._tree.line, {**self._tree.entries, _WORKERS: workers})

    def _whole(self, name: str, section: Mapping) -> Mapping:
        chain, is_whole = self._chain(_Worker(None, name))
        sections = [without(one, _KEY) for one in chain]
        whole = sections.pop()
        while sections:
            whole = merged(whole, sections.pop(), (_WORKERS, name))
        if not is_whole:  # no key is missing that may have come from there
            broken = Entry(section.entries[_KEY].line, Broken(section.line))
            whole = mapping_of(section.line, {**whole.entries, _KEY: broken})
        return msgspec.structs.replace(whole, line=section.line)

    def _chain(self, worker: _Worker) -> tuple[list[Mapping], bool]:
        """The sections of a worker, of that which it extends, and so on, and whether that is all."""
        chain: dict[_Worker, Mapping] = {}
        at: _Worker | None = worker
        is_whole = True
        while at is not None:
            section = chain[at] = cast("Mapping", self._workers[at.file].entries[at.name].node)
            at = self._next(at, section, chain)
            is_whole = at is not None or _KEY not in section.entries
        return list(chain.values()), is_whole

    def _next(
        self, worker: _Worker, section: Mapping, chain: AbstractMapping[_Worker, Mapping]
    ) -> _Worker | None:
        entry = section.entries.get(_KEY)
        if entry is None:
            return None
        place = Place(entry.line, f"{_WORKERS}.{worker.name}.{_KEY}")
        if worker not in self._bases:
            self._bases[worker] = self._base(worker, entry, place)
        base = self._bases[worker]
        if base is None:
            return None
        if base in chain:
            self._add_cycle([*chain], base, place)
            return None
        if len(chain) > MAX_CHAIN:
            self._problems.add(place, f"more than {MAX_CHAIN} workers extend each other in a row")
            return None
        return base

    def _base(self, worker: _Worker, entry: Entry, place: Place) -> _Worker | None:
        """The worker that another one extends; None where there is none, with a problem."""
        node = expand_tree(entry.node, self._environ, self._problems, place)
        section = check_type(node, Extends, place, self._problems)
        if not isinstance(section, ExtendsSection):
            return None
        name = section.worker or worker.name
        file = worker.file
        if section.file is not None:
            file = self._problems.source(entry.line)[0].parent / section.file
        if not self._is_read(file, place):
            return None
        there = self._workers[file].entries
        if name not in there or not isinstance(there[name].node, Mapping):
            where = "" if section.file is None else f" in {file}"
            advice = did_you_mean(name, there) or f" (workers: {', '.join(there)})"
            self._problems.add(place, f"no worker is named {name!r}{where}{advice}")
            return None
        return _Worker(file, name)

    def _is_read(self, file: Path | None, place: Place) -> bool:
        if file is None or file in self._workers:
            return True
        try:
            tree = Inclusion(self._sources, self._environ, self._problems).tree(file)
        except ValueError as error:
            self._problems.add(place, f"the file {file} cannot be read: {error}")
            return False
        if tree is not None:
            self._workers[file] = workers_of(tree)
        return tree is not None

    def _add_cycle(self, chain: list[_Worker], base: _Worker, place: Place) -> None:
        cycle = chain[chain.index(base) :]
        if frozenset(cycle) not in self._cycles:
            self._cycles.add(frozenset(cycle))
            path = " → ".join(map(str, [*cycle, base]))
            self._problems.add(place, f"these workers extend each other: {path}")
