"""Checks of this machine: versions, packages, limits, folders."""

import os
import platform
import resource
import shutil
import stat
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pbus.client.doctor.findings import Finding, error, ok, warning
from pbus.errors import BrokerStartError, ProcessError
from pbus.process.project.folders import (
    MAX_SOCKET_PATH,
    refuse_foreign_path,
    runtime_roots,
    state_root,
)
from pbus.process.project.project import Project
from pbus.process.services.postgres_cluster import find_programs
from pbus.process.services.valkey import find_valkey
from pbus.topology.model import Topology
from pbus.topology.policy.shared_process import processes_of

_NAME: Final = "pbus-orchestrator"
_LEAST_FREE_BYTES: Final = 1 << 30
_NO_FREE_BYTES: Final = 64 << 20
_FILES_A_WORKER: Final = 4
_OWN_FILES: Final = 192  # of the supervisor: connections, its logs, a reserve
_SOCKETS: Final = ("valkey.sock", ".s.PGSQL.5432")


def versions() -> Iterator[Finding]:
    """Python and pbus."""
    system = f"{platform.system()} {platform.machine()}"
    yield ok("python", f"Python {platform.python_version()} on {system}, pbus {own_version()}")


def own_version() -> str:
    """The version of pbus that runs here."""
    return metadata.version(_NAME)


def packages(topology: Topology | None) -> Iterator[Finding]:
    """The packages that a topology needs beyond those that pbus always has."""
    if topology is None:
        return
    bus = topology.bus
    if bus.url is None:
        yield _embedded_broker(bus.backend)
    if topology.loop != "uvloop":
        return
    if find_spec("uvloop") is None:
        install = f"pip install '{_NAME}[uvloop]'"
        yield error("packages", "`loop: uvloop` needs the package uvloop", install)
    else:
        yield ok("packages", f"uvloop {metadata.version('uvloop')}, for `loop: uvloop`")


def _embedded_broker(backend: str) -> Finding:
    try:
        program = find_programs() / "postgres" if backend == "pgmq" else find_valkey()
    except BrokerStartError as problem:
        return error("packages", problem.message, problem.hint)
    return ok("packages", f"the server of the embedded broker is {program}")


def open_files(topology: Topology | None) -> Iterator[Finding]:
    """The limit on open files, against what the workers take."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # pbus raises the soft limit by itself
    count = len(processes_of(topology.instances())) if topology is not None else 0
    needed = _OWN_FILES + _FILES_A_WORKER * count
    if hard == resource.RLIM_INFINITY or hard >= needed:
        shown = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,} may be open"
        yield ok("files", f"{shown}, {count:,} workers take some {needed:,}")
    else:
        yield error(
            "files",
            f"{hard:,} files may be open, and {count:,} workers take some {needed:,}: some will not"
            " be started",
            "raise the hard limit (`ulimit -Hn`, LimitNOFILE= of a service), or run fewer replicas",
        )


def folders(project: Project | None) -> Iterator[Finding]:
    """The folders for state and sockets: owner, mode, room, and the length of socket paths."""
    try:
        state = state_root() if project is None else project.state_dir
        refuse_foreign_path(state)
    except ProcessError as problem:
        yield error("state", problem.message, problem.hint)
        return
    yield from _folder("state", state, "set XDG_STATE_HOME to a folder of your own")
    yield from _room(state)
    runtime = runtime_roots()[0] if project is None else project.runtime_dir
    yield from _folder("runtime", runtime, "set XDG_RUNTIME_DIR to a folder of your own")
    longest = max(len(os.fsencode(runtime / name)) for name in _SOCKETS)
    if project is not None and longest > MAX_SOCKET_PATH:
        yield error(
            "runtime",
            f"paths of sockets in {runtime} have {longest} bytes, and the system takes"
            f" {MAX_SOCKET_PATH}",
            "set XDG_RUNTIME_DIR to a folder with a shorter path",
        )


def _folder(check: str, folder: Path, hint: str) -> Iterator[Finding]:
    place = _nearest(folder)
    try:
        found = place.stat()
    except OSError as problem:
        yield error(check, f"{place} cannot be looked at: {problem.strerror}", hint)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield error(check, f"{place} is no folder", f"remove it, or {hint}")
    elif not os.access(place, os.W_OK | os.X_OK):
        yield error(check, f"{place} cannot be written to", hint)
    elif place == folder and found.st_uid != os.geteuid():
        yield error(check, f"{place} belongs to user id {found.st_uid}", hint)
    elif place == folder and found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        yield warning(check, f"others can enter {place} (mode {mode:04o})", f"chmod 700 {place}")
    else:
        shown = "is yours alone" if place == folder else f"will be made in {place}"
        yield ok(check, f"{folder} {shown}")


def _nearest(folder: Path) -> Path:
    """The folder, or the first of its parents that is there."""
    return next((one for one in (folder, *folder.parents) if os.path.lexists(one)), folder)


def _room(state: Path) -> Iterator[Finding]:
    place = _nearest(state)
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return  # told by the check of the folder
    text = f"{free / (1 << 30):,.1f} GiB are free for logs and stored messages in {place}"
    hint = "make room, or set XDG_STATE_HOME to a folder on another disk"
    if free < _NO_FREE_BYTES:
        yield error("disk", text, hint)
    elif free < _LEAST_FREE_BYTES:
        yield warning("disk", text, hint)
    else:
        yield ok("disk", text)
