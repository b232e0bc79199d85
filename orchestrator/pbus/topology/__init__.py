"""From a YAML file to a checked topology."""

from pbus.topology.describe import describe
from pbus.topology.load import load_topology
from pbus.topology.model import BusSpec, Topology, WorkerInstance, WorkerSpec

__all__ = ["BusSpec", "Topology", "WorkerInstance", "WorkerSpec", "describe", "load_topology"]
