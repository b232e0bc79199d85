"""A worker that does nothing; `start` measures its cost."""

from pbus.workers.base_worker import BaseWorker


class Idle(BaseWorker):
    """Runs and waits."""
