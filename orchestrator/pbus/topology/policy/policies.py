"""Values of a worker's policies: order, readiness, health, restarts, stopping."""

from typing import Literal, TypeAlias

import msgspec

from pbus.leases import LEASE_S

RestartPolicy = Literal["never", "on-failure", "always"]
Condition = Literal["started", "ready", "active", "healthy", "completed"]
OnExit = Literal["ignore", "stop", "fail"]


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """A dependency: a worker that must reach a condition first.

    Attributes:
        worker: The name of the dependency; a group of replicas counts as a whole.
        condition: The state that it must have reached.
        required: Whether its failure is the failure of the dependent; else the wait ends.
        restart: Whether the dependent is restarted with it.
    """

    worker: str
    condition: Condition = "ready"
    required: bool = True
    restart: bool = False


class LogProbe(msgspec.Struct, frozen=True, tag="log"):
    """A line of the worker's output matches `pattern`, a regular expression."""

    pattern: str


class HttpProbe(msgspec.Struct, frozen=True, tag="http"):
    """A GET of `url` is answered with a status from 200 to 399."""

    url: str


class MetricsSpec(msgspec.Struct, frozen=True):
    """Where the supervisor tells its metrics."""

    host: str
    port: int


class HistorySpec(msgspec.Struct, frozen=True):
    """The parts of the past that a project keeps beside logs and events."""

    traffic: bool = False


class TcpProbe(msgspec.Struct, frozen=True, tag="tcp"):
    """A connection to `host` and `port` can be opened."""

    host: str
    port: int


class ExecProbe(msgspec.Struct, frozen=True, tag="exec"):
    """`command`, run in the worker's folder and environment, exits with 0."""

    command: tuple[str, ...]


class NotifyProbe(msgspec.Struct, frozen=True, tag="notify"):
    """The worker sends READY=1 to the socket in NOTIFY_SOCKET, as systemd has it."""


class BusProbe(msgspec.Struct, frozen=True, tag="bus"):
    """The worker is registered as ready on the bus; as a health check: its event loop runs.

    Attributes:
        max_silence_s: Seconds since the last heartbeat after which its event loop counts as blocked.
        max_handler_s: Seconds that one of its handlers may run; None for no limit.
    """

    max_silence_s: float = LEASE_S
    max_handler_s: float | None = None


class LineProbe(BusProbe, frozen=True, tag="line"):
    """The program of a worker with `stdio` has printed that it is ready; then the worker registers."""


Probe: TypeAlias = LogProbe | HttpProbe | TcpProbe | ExecProbe | NotifyProbe | BusProbe | LineProbe


class ReadySpec(msgspec.Struct, frozen=True, kw_only=True):
    """The condition of readiness of a started process.

    Attributes:
        probe: The check; it is repeated until it succeeds.
        timeout_s: Seconds from the start after which a process that is not ready has failed.
    """

    probe: Probe
    timeout_s: float = 60.0


class HealthSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The check of a ready process.

    Attributes:
        probe: The check.
        every_s: Seconds from one check to the next.
        timeout_s: Seconds that one check may take.
        failures: Checks in a row that must fail.
        start_period_s: Seconds after the start in which failures do not count.
        restart: Whether an unhealthy process is restarted; else it is only shown.
    """

    probe: Probe
    every_s: float = 10.0
    timeout_s: float = 5.0
    failures: int = 3
    start_period_s: float = 0.0
    restart: bool = True


class RestartSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The restarts of a process that has ended.

    Attributes:
        policy: After which ends.
        initial_s: Seconds before the first restart.
        factor: How the pause grows with each restart in a row.
        max_s: The longest pause, in seconds.
        jitter: The share of a pause by which it may differ at random, 0 to 1.
        max_exits: Ends within `within_s` after which the worker is given up.
        within_s: Seconds.
    """

    policy: RestartPolicy = "on-failure"
    initial_s: float = 0.5
    factor: float = 2.0
    max_s: float = 30.0
    jitter: float = 0.0
    max_exits: int = 5
    within_s: float = 60.0


class LimitsSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When a process that works is replaced by a new one.

    Attributes:
        memory_bytes: Resident memory of its process group; None for no limit.
        age_s: Seconds since its start; None for no limit.
        jobs: The number of jobs that it has finished; None for no limit.
    """

    memory_bytes: int | None = None
    age_s: float | None = None
    jobs: int | None = None


class StopSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of ending a process.

    Attributes:
        drain: Whether a worker on the bus is asked to finish its open jobs first.
        grace_s: Seconds to end by itself, after the message and after the signal; None: as usual.
        signal: The first signal.
        command: A program that is run before the signal, in the worker's folder and environment.
    """

    drain: bool = True
    grace_s: float | None = None
    signal: str = "SIGTERM"
    command: tuple[str, ...] | None = None
