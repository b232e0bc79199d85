"""Messages between a supervisor and its zygote: JSON in a memory file, with open descriptors.

A socket's buffer limits the size of a message, a memory file does not, so sending never blocks.
"""

import os
import socket
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from pbus.process.system import path_json
from pbus.process.system.launch_plan import ProcessEnvironment
from pbus.urls import BACKEND_OF_SCHEME, url_scheme

T = TypeVar("T")
FileStamp = tuple[int, int, int]  # time of change, size and inode

_MOST_DESCRIPTORS: Final = 8


class ZygoteSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The modules that a zygote imports before it forks.

    Attributes:
        modules: Those of pbus and its drivers; one that cannot be imported is left out.
        preload: Those of the user.
        file: The topology file, beside which the user's modules are.
    """

    modules: tuple[str, ...]
    preload: tuple[str, ...]
    file: str


class ZygoteReady(msgspec.Struct, frozen=True, kw_only=True):
    """A zygote has imported its modules.

    Attributes:
        files: The files of the user's modules and of all that these imported.
        problems: Modules of the user's that cannot be imported, each with the reason.
        obstacle: Why it cannot fork; "" where it can.
    """

    files: dict[str, FileStamp]
    problems: tuple[str, ...] = ()
    obstacle: str = ""


class ForkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One fork. Its descriptors are: the link to the supervisor, stdout, stderr, the launch spec."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    parent: int
    """The supervisor, which becomes the parent."""


def zygote_spec(environment: ProcessEnvironment) -> ZygoteSpec:
    """Return what the zygote of a project imports."""
    backend = BACKEND_OF_SCHEME.get(url_scheme(environment.bus.url or ""), "memory")
    own = f"pbus.bus.{backend}"
    return ZygoteSpec(
        modules=(own, environment.loop),
        preload=environment.preload,
        file=str(environment.file),
    )


def stamp(path: str) -> FileStamp | None:
    """Return what changes with the content of a file; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - thousands of them
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def send(control: socket.socket, value: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
    """Send a value; the descriptors stay open here.

    Raises:
        OSError: The other end is closed, or there is no room.
    """
    file = os.memfd_create("pbus-fork")
    try:
        data = memoryview(path_json.encode(value))
        while data:
            data = data[os.write(file, data) :]
        socket.send_fds(control, [b"+"], [file, *descriptors])
    finally:
        os.close(file)


def receive(control: socket.socket, kind: type[T]) -> tuple[T, list[int]] | None:
    """Receive a value and its descriptors, which do not pass to programs; None at the end.

    Raises:
        OSError: The socket is broken, or would block.
        msgspec.MsgspecError: The data is no such value.
    """
    data, descriptors, _, _ = socket.recv_fds(control, 1, _MOST_DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it has no name
    if not data or not descriptors:
        return None
    with os.fdopen(descriptors.pop(0), "rb") as file:
        file.seek(0)
        return path_json.decode(file.read(), kind), descriptors
