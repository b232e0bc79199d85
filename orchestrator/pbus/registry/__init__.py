"""Who is there, on which runner, since when; and who is there no longer."""

from pbus.registry.data import WorkerErrorData, WorkerLostData, WorkerReadyData

__all__ = ["WorkerErrorData", "WorkerLostData", "WorkerReadyData"]
