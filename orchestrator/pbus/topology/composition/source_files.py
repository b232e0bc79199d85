"""The files of one load, each read once."""

import os
from pathlib import Path
from typing import Final

from pbus.errors import TopologyError
from pbus.topology.check import check_shape
from pbus.topology.parsing.bounded_read import read_text
from pbus.topology.parsing.nodes import Mapping
from pbus.topology.parsing.yaml_tree import parse_yaml
from pbus.topology.problems import Place, Problems

MAX_FILES: Final = 100
_EMPTY: Final = "the file is empty: expected at least the key `workers`"


def identity(file: Path) -> str:
    """The path of a file without links; as it is, where it cannot be one."""
    try:
        return os.path.realpath(file)
    except ValueError:
        return str(file)


class SourceFiles:
    """Reads the files of a topology.

    Args:
        problems: Collects their problems.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._trees: dict[str, Mapping | None] = {}

    def read(self, file: Path) -> Mapping | None:
        """The tree of a file; None where it has none, whose problem was added.

        Raises:
            ValueError: The file cannot be read, or there are too many.
        """
        key = identity(file)
        if key not in self._trees:
            if len(self._trees) >= MAX_FILES:
                message = f"more than {MAX_FILES} files"
                raise ValueError(message)
            self._trees[key] = self._parsed(file, read_text(file))
        return self._trees[key]

    def _parsed(self, file: Path, text: str) -> Mapping | None:
        before = self._problems.open(file)
        try:
            tree = parse_yaml(text, self._problems, before)
        except TopologyError:  # with the problems that were added
            return None
        if isinstance(tree, Mapping):
            return tree
        if tree is None:
            self._problems.add(Place(before + 1, ""), _EMPTY)
        else:
            check_shape(tree, self._problems)
        return None
