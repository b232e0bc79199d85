"""The checked topology: frozen values that the rest of pbus reads."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from pbus.names import replica_name, replica_number
from pbus.settings import BusSettings
from pbus.topology.policy.policies import (
    Dependency,
    HealthSpec,
    HistorySpec,
    LimitsSpec,
    MetricsSpec,
    OnExit,
    ReadySpec,
    RestartSpec,
    StopSpec,
)

Loop = Literal["asyncio", "uvloop"]
Stdio = Literal["jsonl"]
StartMode = Literal["exec", "fork"]
DEFAULT_START: StartMode = "fork"  # where the system can

REPLICA_VARIABLE = "PBUS_REPLICA"
REPLICA_MARK = "{replica}"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One of several workers of a process.

    Attributes:
        name: The name that it registers under.
        group: The worker that it is a replica of; else its own name.
        worker: ``module:Class``.
        args: Keyword arguments of the class.
        active: Whether it handles messages from the start.
        file: The file that names its class.
        after: The names of others in the process that must be ready before it is started.
    """

    name: str
    group: str
    worker: str
    args: dict[str, Any]
    active: bool
    file: Path | None
    after: tuple[str, ...] = ()


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One declared worker: its program, folder and number of processes.

    Attributes:
        file: The file that names its class, absolute: the class is imported from there. None where
            it was made without a file.
        worker: ``module:Class``, or None with `command`.
        command: A program and its arguments, or None with `worker`.
        stdio: The form of messages on the stdin and stdout of `command`; None: the program is no worker.
        joins: Whether the process is expected in the registry.
        pipecat: Whether the program is Pipecat's, and gets a sidecar.
        args: Keyword arguments of the class.
        env: Variables added to the environment; those of `env_file` are merged in already.
        working_dir: Absolute; it exists.
        active: Whether it handles messages from the start.
        replicas: The number of processes, or None for one without a number in its name.
        depends_on: The workers that it waits for before it is started.
        ready: The condition of readiness; None: registered on the bus, or at once for
            a program that does not join it.
        health: The check of a ready process; None for no check.
        restart: When it is started again.
        success_exit_codes: Exit codes besides 0 with which it ended well.
        on_exit: The consequence for the project when it has ended finally.
        limits: The bounds over which a process that works is replaced.
        stop: The steps of its end.
        start: How a process of it is made.
        watch: Files and folders, absolute, whose change restarts it; None where the file has none.
        profiles: It is started only where one of them is chosen; always where there is none.
        sends_to: The workers that it says to send to; "*" for everyone. Only `pbus graph` reads it.
        process: The name of the process that it shares with others; None for one of its own.
        members: All workers of the process, of which this is the first; empty where it is alone.
    """

    name: str
    working_dir: Path
    joins: bool
    file: Path | None = None
    worker: str | None = None
    command: tuple[str, ...] | None = None
    stdio: Stdio | None = None
    pipecat: bool = False
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    env: dict[str, str] = msgspec.field(default_factory=dict)
    active: bool = True
    replicas: int | None = None
    depends_on: tuple[Dependency, ...] = ()
    ready: ReadySpec | None = None
    health: HealthSpec | None = None
    restart: RestartSpec = RestartSpec()
    success_exit_codes: frozenset[int] = frozenset()
    on_exit: OnExit = "ignore"
    limits: LimitsSpec = LimitsSpec()
    stop: StopSpec = StopSpec()
    start: StartMode = DEFAULT_START
    watch: tuple[Path, ...] | None = None
    profiles: frozenset[str] = frozenset()
    sends_to: tuple[str, ...] = ()
    process: str | None = None
    members: tuple[Member, ...] = ()

    @property
    def is_hosted(self) -> bool:
        """Whether the process is one of pbus', with the worker in it."""
        return self.worker is not None or self.stdio is not None

    def is_success(self, code: int | None) -> bool:
        """Whether a process with this exit code has ended well."""
        return code == 0 or code in self.success_exit_codes

    def instances(self) -> "list[WorkerInstance]":
        """One instance a process: ``x``, or ``x.1`` to ``x.N`` with replicas."""
        if self.replicas is None:
            return [WorkerInstance(name=self.name, spec=self)]
        return [
            WorkerInstance(name=replica_name(self.name, number), spec=self._replica(number))
            for number in range(1, self.replicas + 1)
        ]

    def instance(self, name: str) -> "WorkerInstance":
        """Return the process of a name: the plain one, or a replica of any number."""
        if self.replicas is None:
            return WorkerInstance(name=self.name, spec=self)
        return WorkerInstance(name=name, spec=self._replica(replica_number(name)))

    def _replica(self, number: int) -> "WorkerSpec":
        """The spec of one replica: its number stands where the file says {replica}."""
        return msgspec.structs.replace(
            self,
            command=_numbered(self.command, number),
            args=_numbered(self.args, number),
            env={**_numbered(self.env, number), REPLICA_VARIABLE: str(number)},
        )


def _numbered(value: Any, number: int) -> Any:
    """A value with the number of a replica for each {replica} in its texts."""
    match value:
        case str():
            return value.replace(REPLICA_MARK, str(number))
        case dict():
            return {key: _numbered(one, number) for key, one in value.items()}
        case list():
            return [_numbered(one, number) for one in value]
        case tuple():
            return tuple(_numbered(one, number) for one in value)
    return value


class WorkerInstance(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run: the name that it registers under, and its spec."""

    name: str
    spec: WorkerSpec

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all workers in the process; its own is the first."""
        return tuple(member.name for member in self.spec.members) or (self.name,)


# Keys that say how a process is supervised: a change of them needs no new process.
LIVE_KEYS = frozenset({
    "depends_on", "limits", "on_exit", "profiles", "replicas", "restart", "sends_to", "start", "stop",
    "success_exit_codes", "watch",
})  # fmt: skip


def with_live_keys(instance: WorkerInstance, spec: WorkerSpec) -> WorkerInstance:
    """Return an instance with those keys of another spec that need no new process."""
    changed = {key: getattr(spec, key) for key in LIVE_KEYS}
    return msgspec.structs.replace(instance, spec=msgspec.structs.replace(instance.spec, **changed))


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """A whole checked topology.

    Attributes:
        file: The YAML file, absolute, as the user named it; links are kept. Of several it is the
            first.
        overrides: The others that the user named, in order.
        parts: Files that were read besides, since those include or extend them.
        folder: The folder of `file`.
        workers: By name, in the order of the file.
        env: Variables of every worker, and of programs run beside them; `env` of workers has them, too.
        loop: The event loop of the processes that host worker classes.
        preload: Modules that are imported before worker processes are forked.
        metrics: Where the supervisor tells its metrics; None for nowhere.
        history: The parts of the past that are kept.
        secrets: Key paths, from the top of the file, of values that must not be shown.
    """

    name: str
    file: Path
    folder: Path
    bus: BusSettings
    workers: dict[str, WorkerSpec]
    overrides: tuple[Path, ...] = ()
    parts: tuple[Path, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    loop: Loop = "asyncio"
    preload: tuple[str, ...] = ()
    metrics: MetricsSpec | None = None
    history: HistorySpec = HistorySpec()
    secrets: frozenset[tuple[str, ...]] = frozenset()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files to be loaded for it, in order."""
        return (self.file, *self.overrides)

    def instances(self) -> list[WorkerInstance]:
        """Every instance of a worker, in the order of the file; see `shared_process`, too."""
        return [instance for spec in self.workers.values() for instance in spec.instances()]

    def groups(self) -> frozenset[str]:
        """The names that replicas share."""
        return frozenset(spec.name for spec in self.workers.values() if spec.replicas is not None)

    def queues(self) -> list[str]:
        """The names of durable queues: of workers that join the bus, and of groups of replicas."""
        joining = [spec for spec in self.workers.values() if spec.joins]
        names = [one.name for spec in joining for one in spec.instances()]
        return list(dict.fromkeys([*(spec.name for spec in joining), *names]))
