"""A worker that does nothing: what `start` measures the cost of."""

from pbus.worker import BaseWorker


class Idle(BaseWorker):
    """Is there."""
