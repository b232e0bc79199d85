"""One tree out of the files of a topology: several given, included, extended."""

from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from pathlib import Path

from pbus.topology.composition.extending import Extension
from pbus.topology.composition.including import Inclusion
from pbus.topology.composition.merging import merged
from pbus.topology.composition.source_files import SourceFiles
from pbus.topology.parsing.bounded_read import NO_FILE
from pbus.topology.parsing.nodes import Mapping
from pbus.topology.parsing.yaml_tree import MAX_NODES
from pbus.topology.problems import Place, Problems


def compose(
    files: Sequence[Path], environ: AbstractMapping[str, str], problems: Problems
) -> Mapping:
    """The tree of a topology; variables in it are not expanded.

    Args:
        files: In order: later ones are merged into the first.
        environ: The values of ``${VAR}`` in names of files and workers.
        problems: Collects the problems.

    Raises:
        TopologyError: One of the files has no tree: no such file, not YAML, or nothing in it.
    """
    sources = SourceFiles(problems)
    parts = [_read(file, Inclusion(sources, environ, problems), problems) for file in files]
    trees = [part for part in parts if part is not None]
    if len(trees) < len(parts):
        error = problems.error()
        if error.problems[0] == f"{files[0]}: {NO_FILE}":
            error.hint = "`pbus init` writes one to begin with"
        raise error
    whole, *others = trees
    for other in others:
        whole = merged(whole, other)
    whole = Extension(whole, sources, environ, problems).whole()
    if whole.size > MAX_NODES:
        problems.add(Place(1, ""), f"more than {MAX_NODES:,} values, with `extends` written out")
        raise problems.error()
    return whole


def _read(file: Path, inclusion: Inclusion, problems: Problems) -> Mapping | None:
    try:
        return inclusion.tree(file)
    except ValueError as error:
        problems.add_file(str(error), file=file)
    return None
