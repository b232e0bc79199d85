"""Finds the source of a module as the import system would, without importing anything."""

import ast
import functools
import importlib
import importlib.machinery
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pbus.topology.paths import import_path

_MAX_SOURCE_BYTES = 4 * 1024 * 1024  # larger files are generated, and no one's worker


class SourceError(Exception):
    """A module cannot be imported as it is; the text says why."""


@dataclass(frozen=True)
class Source:
    """A module.

    Attributes:
        name: Dotted.
        file: Where it is; None of a built-in module or a folder without `__init__.py`.
        tree: Its syntax tree; None where there is no Python source, as of extension modules.
        folders: Where its submodules are, of a package.
    """

    name: str
    file: Path | None
    tree: ast.Module | None
    folders: tuple[str, ...] | None


@dataclass(frozen=True)
class Sources:
    """The modules that a worker process can import.

    Attributes:
        files: That of the worker, and the topology.
        variable: PYTHONPATH of the worker.
        working_dir: Of the worker: relative entries of PYTHONPATH begin there.
    """

    files: tuple[Path, ...]
    variable: str
    working_dir: Path
    _found: dict[str, Source] = field(default_factory=dict, compare=False)

    def find(self, name: str) -> Source:
        """The module of that name; its parents are read, too.

        Raises:
            SourceError: There is none, or it is no valid Python.
        """
        if name not in self._found:
            importlib.invalidate_caches()
            self._found[name] = self._read(name)
        return self._found[name]

    def neighbours(self) -> list[str]:
        """The names of modules beside the topology."""
        entries = [entry for folder in self._own for entry in _entries(folder)]
        return sorted({Path(entry).stem for entry in entries if entry.endswith(".py")})

    def _read(self, name: str) -> Source:
        parent, _, _ = name.rpartition(".")
        spec = self._top(name) if not parent else self._sub(name, self.find(parent))
        if spec is None:
            raise SourceError(f"there is no module `{name}`")
        folders = spec.submodule_search_locations
        places = None if folders is None else tuple(folders)
        if not isinstance(spec.loader, importlib.machinery.SourceFileLoader) or not spec.origin:
            return Source(name, None, None, places)
        file = Path(spec.origin)
        return Source(name, file, _parsed(file), places)

    def _sub(self, name: str, parent: Source) -> importlib.machinery.ModuleSpec | None:
        if parent.folders is not None:
            return importlib.machinery.PathFinder.find_spec(name, parent.folders)
        where = parent.file.name if parent.file else parent.name
        raise SourceError(f"there is no module `{name}`: {where} is no package")

    def _top(self, name: str) -> importlib.machinery.ModuleSpec | None:
        """The spec of a top-level module; the topology's own folders come last, as in a worker."""
        given = [str(self.working_dir / one) for one in self.variable.split(os.pathsep) if one]
        spec = importlib.machinery.PathFinder.find_spec(name, given) or _installed(name)
        return spec or importlib.machinery.PathFinder.find_spec(name, self._own)

    @functools.cached_property
    def _own(self) -> Sequence[str]:
        return import_path(*self.files)


def _installed(name: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of a module that this interpreter has; `sys.modules` is not asked."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: importlib.machinery.ModuleSpec | None = find(name, None) if find else None
        if spec is not None:
            return spec
    return None


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are enough
    except OSError:
        return []


def _parsed(file: Path) -> ast.Module | None:
    """The tree of a source file; None of one that is too large.

    Raises:
        SourceError: It cannot be read, or is no valid Python.
    """
    try:
        if file.stat().st_size > _MAX_SOURCE_BYTES:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are the author's, when the module is imported
            return ast.parse(file.read_bytes(), str(file))
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise SourceError(f"{file.name}, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SourceError(f"{file.name} is no valid Python: {error}") from None
