"""A real Postgres 18 for tests, on a Unix socket, with the SQL that the pgmq package ships."""

import asyncio
import contextlib
import fcntl
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import asyncpg
import psutil
from pgmq.install import get_embedded_sql_version, install_pgmq_from_sql

from pbus.process.services import postgres_cluster

_START_TIMEOUT_S = 10.0
_TEMPLATE = "pgmq_template"
_ADMIN = "postgres"


class Postgres:
    """One server in a folder of its own; start, kill and start again at the same address.

    Args:
        is_durable: Keep fsync on: for tests that kill the server or measure.
    """

    def __init__(self, *, is_durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pbus-pg-"))
        self._data = self.folder / "data"
        self._is_durable = is_durable
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = _ADMIN) -> str:
        """Where a database is."""
        return f"postgresql://{postgres_cluster.ROLE}@/{database}?host={quote(str(self.folder), safe='')}"

    def start(self) -> None:
        """Start and wait until it answers."""
        postgres_cluster.own(self.folder)
        if not self._data.exists():
            _copy(_prepared(), self._data)
        options = [] if self._is_durable else ["-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *postgres_cluster.server_arguments(programs(), self._data, self.folder),
                    *options,
                ],
                **postgres_cluster.user_options(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        asyncio.run(self._wait_ready())

    def create_database(self) -> str:
        """A fresh database with PGMQ's SQL; returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
        return self.url(name)

    def execute(self, sql: str, *arguments: Any, database: str = _ADMIN) -> Any:
        """Run one statement and return its rows, from code without a loop."""
        return asyncio.run(query(self.url(database), sql, *arguments))

    def kill(self) -> None:
        """End it and its children as kill -9 does, so that it can be started again at once."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children()
        self._process.kill()
        for child in children:  # each leads a group of its own
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self._process.wait()
        psutil.wait_procs(children, _START_TIMEOUT_S)

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # its "fast" shutdown
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                await query(self.url(), "SELECT 1")
            except (OSError, asyncpg.PostgresError):
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                await asyncio.sleep(0.01)
            else:
                return


async def query(url: str, sql: str, *arguments: Any) -> Any:
    """Run one statement on a connection of its own and return its rows."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()


def _prepared() -> Path:
    """A cluster with the template database, made once for this version and kept for later runs."""
    programs()  # locks the same folder
    with _kept() as kept:
        if not (kept / "data").exists():
            _prepare(kept / "data")
    return kept / "data"


@functools.cache
def programs() -> Path:
    """Where the server's user can run them: the tests may lie in a folder that only root enters."""
    with _kept() as kept:
        return postgres_cluster.programs_for_service(kept)


@contextlib.contextmanager
def _kept() -> Iterator[Path]:
    """A folder for this version of the programs; others wait meanwhile."""
    found = postgres_cluster.find_programs()
    stamp = f"{found.parent.name}-{found.stat().st_mtime_ns}-{get_embedded_sql_version()}"
    kept = Path(tempfile.gettempdir()) / f"pbus-pg-kept-{os.geteuid()}-{stamp}"
    kept.mkdir(exist_ok=True)
    kept.chmod(0o711)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield kept


def _prepare(data: Path) -> None:
    maker = Postgres()
    try:
        postgres_cluster.own(maker.folder)
        postgres_cluster.init_cluster(programs(), maker._data)
        maker.start()
        maker.execute(f"CREATE DATABASE {_TEMPLATE}")
        install_pgmq_from_sql(dsn=maker.url(_TEMPLATE))
        maker.execute("CHECKPOINT")
        assert maker._process is not None
        maker._process.send_signal(signal.SIGINT)
        maker._process.wait(10)
        partial = data.with_name("partial")
        shutil.rmtree(partial, ignore_errors=True)
        _copy(maker._data, partial)
        partial.rename(data)
    finally:
        maker.close()


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
