"""Paths as their user names them: links are kept, since their targets may change."""

import os
import sys
from pathlib import Path

_DELETED = " (deleted)"  # what Linux adds to the name of such a folder


def working_folder() -> Path:
    """The current folder under the shell's name for it, links included; also a deleted one."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return _deleted_folder()
    named = Path(os.environ.get("PWD", ""))  # of another process, if it set none for us
    is_usable = named.is_absolute() and ".." not in named.parts
    return named if is_usable and is_same_place(named, here) else here


def as_named(path: Path) -> Path:
    """The absolute path without `.` and `..`; links are kept, except those that `..` leads out of."""
    first, *parts = (working_folder() / path).parts
    place = Path(first)
    for part in parts:
        if part != "..":
            place /= part
        else:
            place = (Path(os.path.realpath(place)) if place.is_symlink() else place).parent
    return place


def is_same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder; a missing one is found by its name alone."""
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def _deleted_folder() -> Path:
    if sys.platform == "linux":
        return Path(os.readlink("/proc/self/cwd").removesuffix(_DELETED))  # noqa: PTH115 - as text
    return Path(os.environ.get("PWD", "/"))


def import_path(*files: Path) -> list[str]:
    """The folders that classes are imported from: of each file, and of that which it links to.

    Links are followed once, here: a module that is imported later comes from the same release.
    """
    folders = [
        folder
        for file in files
        for folder in (os.path.realpath(file.parent), str(Path(os.path.realpath(file)).parent))
    ]
    return list(dict.fromkeys(folders))
