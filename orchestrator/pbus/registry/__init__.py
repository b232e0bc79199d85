"""The registry of workers: names, leases, readiness, losses."""

from pbus.registry.directory import Replicas
from pbus.registry.event_data import WorkerErrorData, WorkerLostData, WorkerReadyData
from pbus.registry.key_owners import KeyOwners, Post
from pbus.registry.own_leases import WorkerFigures
from pbus.registry.registry import WorkerRegistry
from pbus.registry.table import entry_of
from pbus.registry.watches import Watch

__all__ = [
    "KeyOwners",
    "Post",
    "Replicas",
    "Watch",
    "WorkerErrorData",
    "WorkerFigures",
    "WorkerLostData",
    "WorkerReadyData",
    "WorkerRegistry",
    "entry_of",
]
