"""From a YAML file to a checked topology.

Readers of files load on first use: processes that only pass values on need no YAML.
"""

from typing import TYPE_CHECKING, Any

from pbus.topology.model import Topology, WorkerInstance, WorkerSpec

if TYPE_CHECKING:
    from pbus.topology.describe import describe
    from pbus.topology.load import load_topology

__all__ = ["Topology", "WorkerInstance", "WorkerSpec", "describe", "load_topology"]


def __getattr__(name: str) -> Any:
    """Load a reader or describer of files on first use."""
    if name == "load_topology":
        from pbus.topology.load import load_topology

        return load_topology
    if name == "describe":
        from pbus.topology.describe import describe

        globals()[name] = describe  # the import put the module of that name there
        return describe
    raise AttributeError(f"module 'pbus.topology' has no attribute {name!r}")
