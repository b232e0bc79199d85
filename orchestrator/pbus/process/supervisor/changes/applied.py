"""The topology that a supervisor has applied, and the workers that it stands for."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pbus.errors import ControlRefusedError
from pbus.topology.load import load_topology
from pbus.topology.model import Topology, WorkerInstance
from pbus.topology.policy.shared_process import processes_of
from pbus.topology.selection import ALL, Selection, select

_READ_S = 5.0  # a file system that takes longer does not answer


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a supervisor.

    Attributes:
        topology: The checked file.
        selection: The processes of it that are to run.
        environ: The values of variables in the file.
        is_watching: A change of Python files restarts classes, too.
        scaled: The number of replicas by worker, where a command gave another than the file.
    """

    topology: Topology
    selection: Selection = ALL
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(os.environ))
    is_watching: bool = False
    scaled: Mapping[str, int] = msgspec.field(default_factory=dict)

    def instances(self) -> list[WorkerInstance]:
        """Return the processes that are to run, in the order of the file.

        Raises:
            TopologyError: A name or a profile of the selection is not in the topology.
        """
        return processes_of(select(self._scaled_topology(), self.selection))

    def _scaled_topology(self) -> Topology:
        workers = {
            name: msgspec.structs.replace(spec, replicas=self.scaled.get(name, spec.replicas))
            for name, spec in self.topology.workers.items()
        }
        return msgspec.structs.replace(self.topology, workers=workers)


async def load(files: Sequence[Path], environ: Mapping[str, str]) -> Topology:
    """Read a topology in a thread.

    Raises:
        TopologyError: It has problems.
        ControlRefusedError: It cannot be read in time.
    """
    try:
        async with asyncio.timeout(_READ_S):
            return await asyncio.to_thread(load_topology, files, environ)
    except TimeoutError:
        raise ControlRefusedError(f"{files[0]} cannot be read within {_READ_S:g} s") from None
