"""Snapshots of watched files: what is compared to find changes, whatever the system reports."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec
from watchfiles import DefaultFilter

Stamp: TypeAlias = tuple[int, int, int]  # time of change, size, inode

MAX_ENTRIES = 50_000  # of one root; what is beyond is not watched
_ENVIRONMENT = "pyvenv.cfg"  # a folder with it is a virtual environment, whatever its name is
_IGNORED_FOLDERS = frozenset({*DefaultFilter.ignore_dirs, ".nox", ".ruff_cache", "venv"})
_IGNORED_NAMES = re.compile(
    "|".join([
        *DefaultFilter.ignore_entity_patterns,
        r"^#.*#$",  # Emacs
        r"^4913$",  # Vim tries whether it may write
        r"^\.~",
        r"^\.goutputstream-",
        r"\.kate-swp$",
        r"\.(bak|tmp|swo|swpx|crdownload|part)$",
    ])
)


class Root(msgspec.Struct, frozen=True):
    """A watched file, or a folder with everything below it; it need not exist.

    Attributes:
        path: Absolute.
        suffix: The end of the names of files that count below a folder.
    """

    path: Path
    suffix: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """The state of the files at one time.

    Attributes:
        files: Their stamps by path, a mapping a root.
        folders: The existing folders in which a change of the files shows.
        cut: The roots that have more files and folders than are looked at.
    """

    files: Mapping[Root, Mapping[str, Stamp]]
    folders: frozenset[str]
    cut: tuple[Root, ...] = ()

    def changes_since(self, earlier: "Snapshot") -> dict[Root, list[str]]:
        """Return the paths that were changed, added or removed, by root."""
        found = {}
        for root, now in self.files.items():
            before = earlier.files.get(root, {})
            paths = [path for path in {**before, **now} if before.get(path) != now.get(path)]
            if paths:
                found[root] = sorted(paths)
        return found


def take_snapshot(roots: Iterable[Root]) -> Snapshot:
    """Look at all files of some roots. Blocks; never raises for files that cannot be read."""
    files: dict[Root, Mapping[str, Stamp]] = {}
    folders: set[str] = set()
    cut: list[Root] = []
    for root in roots:
        folders.add(_nearest_folder(root.path.parent))
        scan = _Scan(root)
        files[root] = scan.files
        folders |= scan.folders
        if scan.is_cut:
            cut.append(root)
    return Snapshot(files, frozenset(folders), tuple(cut))


def is_ignored(name: str) -> bool:
    """Whether a file or folder below a root is an editor's, a cache or an environment, by its name."""
    return name in _IGNORED_FOLDERS or _IGNORED_NAMES.search(name) is not None


class _Scan:
    """The files and folders of one root; links are followed."""

    def __init__(self, root: Root) -> None:
        self.files: dict[str, Stamp] = {}
        self.folders: set[str] = set()
        self._suffix = root.suffix
        self._seen: set[tuple[int, int]] = set()  # a link may lead back up
        self._stack: list[str] = []
        path = str(root.path)
        self._add(path)
        while self._stack and len(self.files) + len(self.folders) < MAX_ENTRIES:
            self._add_entries(self._stack.pop())

    @property
    def is_cut(self) -> bool:
        """Whether there is more than was looked at."""
        return bool(self._stack)

    def _add_entries(self, folder: str) -> None:
        self.folders.add(folder)
        try:
            names = os.listdir(folder)  # noqa: PTH208 - names are enough
        except OSError:
            return
        for name in names:
            if not is_ignored(name):
                self._add(f"{folder}/{name}")

    def _add(self, path: str) -> None:
        try:
            state = os.stat(path)  # noqa: PTH116 - for tens of thousands
        except (OSError, ValueError):  # a link to nothing, or it has just gone
            return
        if stat.S_ISDIR(state.st_mode):
            place = (state.st_dev, state.st_ino)
            is_first = not self.folders and not self._stack
            if place not in self._seen and (is_first or not _is_environment(path)):
                self._seen.add(place)
                self._stack.append(path)
        elif stat.S_ISREG(state.st_mode) and path.endswith(self._suffix):
            self.files[path] = (state.st_mtime_ns, state.st_size, state.st_ino)
            if os.path.islink(path):  # noqa: PTH114 - likewise
                self.folders.add(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120 - likewise


def _is_environment(folder: str) -> bool:
    return os.path.exists(f"{folder}/{_ENVIRONMENT}")  # noqa: PTH110 - likewise


def _nearest_folder(path: Path) -> str:
    """The folder, or the nearest one above it that exists."""
    return str(next((one for one in (path, *path.parents) if one.is_dir()), Path("/")))
