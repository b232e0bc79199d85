"""The crash capsules of a project on disk: one file each, bounded in number and bytes."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from pbus.names import stands_for
from pbus.process.project.history.capsule import Capsule, decode_capsule, encode_capsule
from pbus.process.project.project import Project, file_name
from pbus.process.system import regular_files

FOLDER: Final = "capsules"  # in a state folder
MAX_OF_WORKER: Final = 10
MAX_OF_PROJECT: Final = 100
MAX_BYTES: Final = 16 * 1024 * 1024  # of all

_LAST_S: Final = 1e11  # later times have more digits
_NAME: Final = re.compile(r"(\d{13,15})-(.+)\.json")  # milliseconds, worker
_DAMAGE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


def write_capsule(project: Project, capsule: Capsule) -> Path:
    """Keep a capsule, and remove the oldest ones that are too many.

    Raises:
        OSError: It cannot be written.
    """
    folder = project.state_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _free_path(folder, capsule.ended, file_name(capsule.worker))
    draft = path.with_suffix(".new")
    body = encode_capsule(capsule)
    try:
        with open(draft, "wb", opener=regular_files.opener) as file:
            file.write(body)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _remove_surplus(folder)
    return path


def read_capsules(
    project: Project,
    worker: str | None = None,
    on_damage: Callable[[Path, str], object] = lambda _path, _why: None,
) -> Iterator[Capsule]:
    """Yield the capsules that are kept, newest first.

    Args:
        project: Whose.
        worker: Only of this worker, or of the replicas of that name.
        on_damage: Called with each file that cannot be read, and the reason.

    Raises:
        OSError: The folder cannot be read.
    """
    for path, _ in reversed(_files(project.state_dir / FOLDER)):
        try:
            capsule = decode_capsule(regular_files.read(path))
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:
            on_damage(path, error.strerror or str(error))
        except _DAMAGE as error:
            on_damage(path, f"it is no capsule: {error}")
        else:
            if worker is None or any(stands_for(worker, name) for name in capsule.workers):
                yield capsule


def _free_path(folder: Path, at: float, worker: str) -> Path:
    stamp = round((at if 0 < at < _LAST_S else time.time()) * 1000)
    while (path := folder / f"{stamp:013d}-{worker}.json").exists():
        stamp += 1
    return path


def _files(folder: Path) -> list[tuple[Path, int]]:
    """The files of capsules with their sizes, oldest first; others in the folder are left alone."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    found = []
    for entry in entries:
        if _NAME.fullmatch(entry.name):
            try:
                found.append((Path(entry.path), entry.stat(follow_symlinks=False).st_size))
            except FileNotFoundError:
                continue
    return sorted(found, key=lambda one: _age_order(one[0]))


def _age_order(path: Path) -> tuple[int, str]:
    stamp, _, worker = path.name.partition("-")
    return int(stamp), worker


def _remove_surplus(folder: Path) -> None:
    counts: dict[str, int] = {}
    count, size = 0, 0
    for path, bytes_ in reversed(_files(folder)):
        worker = path.name.partition("-")[2]
        counts[worker] = counts.get(worker, 0) + 1
        is_surplus = counts[worker] > MAX_OF_WORKER or count >= MAX_OF_PROJECT
        if is_surplus or (count and size + bytes_ > MAX_BYTES):
            with contextlib.suppress(OSError):  # gone, or a folder
                path.unlink()
        else:
            count, size = count + 1, size + bytes_
