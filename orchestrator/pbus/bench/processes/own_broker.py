"""An embedded broker for one benchmark; it ends with it in every case."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from pbus.process.project.project import Project
from pbus.process.services.guard_client import GuardClient
from pbus.process.services.postgres import EmbeddedPostgres, home_of
from pbus.process.services.postgres_cluster import remove
from pbus.process.services.valkey import EmbeddedValkey

BrokerKind = Literal["valkey", "valkey-durable", "postgres"]


@contextlib.asynccontextmanager
async def own_broker(kind: BrokerKind = "valkey") -> AsyncIterator[str]:
    """The URL of an embedded broker that runs within the block.

    Args:
        kind: A Valkey in memory, one that writes to disk as with `pbus up` and delivery
            at-least-once, or a Postgres.

    Raises:
        ProcessError: It (or its guard) does not start.
    """
    with tempfile.TemporaryDirectory(prefix="pbus-bench-") as name:
        folder = Path(name)
        project = Project("bench", folder, folder / "bench.yaml")
        guard = GuardClient()
        try:
            await guard.start(project)
            server = _server(kind, project, guard)
            try:
                yield await server.start()
            finally:
                await server.stop()
        finally:
            await guard.stop()
            if kind == "postgres":
                remove(home_of(project))
            shutil.rmtree(project.state_dir, ignore_errors=True)


def _server(
    kind: BrokerKind, project: Project, guard: GuardClient
) -> EmbeddedValkey | EmbeddedPostgres:
    if kind == "postgres":
        return EmbeddedPostgres(project, guard)
    return EmbeddedValkey(project, guard, keeps_data=kind == "valkey-durable")
