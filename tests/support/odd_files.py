"""What may lie in the place of a file: pipes, sockets, devices, folders, links."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the paths of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


# By how pbus names them. Links to devices, since only root makes devices.
ODD: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": _folder,
    "a link to nothing": lambda path: path.symlink_to("/nonexistent/file"),
}


def put_odd(path: Path, kind: str) -> None:
    """Put one in the place of what is there."""
    clear(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ODD[kind](path)


def clear(path: Path) -> None:
    """Remove what is there, if anything is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
