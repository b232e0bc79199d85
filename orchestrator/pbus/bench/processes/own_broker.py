"""An embedded broker for one benchmark; it ends with it in every case."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from pbus.process.project.project import Project
from pbus.process.services.guard_client import GuardClient
from pbus.process.services.valkey import EmbeddedValkey


@contextlib.asynccontextmanager
async def own_broker(*, keeps_data: bool = False) -> AsyncIterator[str]:
    """The URL of an embedded Valkey that runs within the block.

    Args:
        keeps_data: It writes to disk, as with `pbus up` and delivery at-least-once.

    Raises:
        ProcessError: It (or its guard) does not start.
    """
    with tempfile.TemporaryDirectory(prefix="pbus-bench-") as name:
        folder = Path(name)
        project = Project("bench", folder, folder / "bench.yaml")
        guard = GuardClient()
        try:
            await guard.start(project)
            valkey = EmbeddedValkey(project, guard, keeps_data=keeps_data)
            try:
                yield await valkey.start()
            finally:
                await valkey.stop()
        finally:
            await guard.stop()
            shutil.rmtree(project.state_dir, ignore_errors=True)
