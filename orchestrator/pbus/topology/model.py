"""The checked topology: frozen values that the rest of pbus reads."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from pbus.names import replica_name
from pbus.settings import BusSettings

Restart = Literal["never", "on-failure", "always"]
Loop = Literal["asyncio", "uvloop"]


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One declared worker: its program, folder and number of processes.

    Attributes:
        worker: ``module:Class``, or None with `command`.
        command: A program and its arguments, or None with `worker`.
        joins: Whether the process is expected in the registry.
        args: Keyword arguments of the class.
        env: Variables added to the environment; those of `env_file` are merged in already.
        working_dir: Absolute; it exists.
        active: Whether it handles messages from the start.
        replicas: The number of processes, or None for one without a number in its name.
    """

    name: str
    working_dir: Path
    joins: bool
    worker: str | None = None
    command: tuple[str, ...] | None = None
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    env: dict[str, str] = msgspec.field(default_factory=dict)
    active: bool = True
    replicas: int | None = None
    restart: Restart = "on-failure"

    def instances(self) -> "list[WorkerInstance]":
        """One instance a process: ``x``, or ``x.1`` to ``x.N`` with replicas."""
        if self.replicas is None:
            return [WorkerInstance(name=self.name, spec=self)]
        return [
            WorkerInstance(name=replica_name(self.name, number), spec=self)
            for number in range(1, self.replicas + 1)
        ]


class WorkerInstance(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run: the name that it registers under, and its spec."""

    name: str
    spec: WorkerSpec


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """A whole checked topology.

    Attributes:
        file: The YAML file, absolute, as the user named it; links are kept.
        folder: The folder in that path.
        workers: By name, in the order of the file.
        loop: The event loop of the processes that host worker classes.
        secrets: Key paths, from the top of the file, of values that must not be shown.
    """

    name: str
    file: Path
    folder: Path
    bus: BusSettings
    workers: dict[str, WorkerSpec]
    loop: Loop = "asyncio"
    secrets: frozenset[tuple[str, ...]] = frozenset()

    def instances(self) -> list[WorkerInstance]:
        """Every process of the topology, in the order of the file."""
        return [instance for spec in self.workers.values() for instance in spec.instances()]

    def groups(self) -> frozenset[str]:
        """The names that replicas share."""
        return frozenset(spec.name for spec in self.workers.values() if spec.replicas is not None)

    def queues(self) -> list[str]:
        """The names of durable queues: of workers that join the bus, and of groups of replicas."""
        joining = [spec for spec in self.workers.values() if spec.joins]
        names = [one.name for spec in joining for one in spec.instances()]
        return list(dict.fromkeys([*(spec.name for spec in joining), *names]))
