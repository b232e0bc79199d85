"""The runner: hosts workers in this process."""

from pbus.runner.runner import WorkerRunner

__all__ = ["WorkerRunner"]
