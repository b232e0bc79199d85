"""A worker that does nothing: what `start` measures the cost of."""

from pbus.workers.base import BaseWorker


class Idle(BaseWorker):
    """Is there."""
