"""The file that PIPECAT_SETUP_FILES names: Pipecat loads it by its path, and calls its functions."""

import logging
from typing import Any

logger = logging.getLogger("pbus.compat.pipecat")


async def setup_worker_runner(runner: Any) -> None:
    """Link the runner to pbus; a Pipecat that pbus does not know runs on without it."""
    try:
        from pbus.compat.pipecat import sidecar  # noqa: PLC0415 - it may fail
    except Exception as error:  # noqa: BLE001 - whatever a Pipecat has that is not known
        logger.warning("pbus stays out: this Pipecat is not known to it: %s", error)
        return
    await sidecar.setup_worker_runner(runner)


async def setup_pipeline_worker(_worker: Any) -> None:
    """Do nothing: workers are found by what their runner's bus says."""
