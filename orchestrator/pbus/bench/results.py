"""Plans and results of measurements: plain values."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from pbus.topology.model import Loop

System = Literal[
    "pbus",
    "redis-py",
    "pgmq",
    "nats-py",
    "pipecat",
    "taskiq",
    "arq",
    "dramatiq",
    "procrastinate",
]

# Some get less of the same work: it would take twenty times as long.
SHARE: Mapping[System, float] = {
    "pbus": 1.0,
    "redis-py": 1.0,
    "pgmq": 0.05,
    "nats-py": 1.0,
    "pipecat": 0.05,
    "taskiq": 0.05,
    "arq": 0.02,
    "dramatiq": 0.02,
    "procrastinate": 0.02,
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The extent of a measurement.

    Attributes:
        count: Messages (round trips, for urgent the queue); None for each measurement's own.
        size: Bytes of text a message carries.
        workers: Receiving processes of a fan-out.
        many: Idle workers of `scale`.
        is_in_process: They share one process.
        has_baseline: Measure the broker's plain client, too.
        baseline: That client.
        peers: Other systems to measure, too.
        rounds: Repetitions; systems take turns, so that other load on the machine meets all.
        tries: Urgent messages.
        pause_s: Seconds that the stalled receiver sleeps.
        held_s: Seconds that another session holds a snapshot.
        window_s: Seconds over which a rate is taken meanwhile.
        command: The words that call `pbus`; empty where its start cannot be measured.
        loop: The event loop of all processes, those of other systems included.
        direct: Whether buses use direct sockets; None for their default.
    """

    count: int | None = None
    size: int = 256
    workers: int = 8
    many: int = 100
    is_in_process: bool = False
    has_baseline: bool = False
    baseline: System = "redis-py"
    peers: tuple[System, ...] = ()
    rounds: int = 2
    tries: int = 100
    pause_s: float = 5.0
    held_s: float = 180.0
    window_s: float = 20.0
    command: tuple[str, ...] = ()
    loop: Loop = "asyncio"
    direct: bool | None = None

    @property
    def systems(self) -> list[System]:
        """The systems to measure, in turn."""
        own: list[System] = ["pbus", self.baseline] if self.has_baseline else ["pbus"]
        return [*own, *self.peers] * self.rounds

    @property
    def without_baseline(self) -> "Plan":
        """This plan without the broker's plain client."""
        return msgspec.structs.replace(self, has_baseline=False)

    def count_or(self, usual: int) -> int:
        """The number of messages asked for, or the usual one."""
        return usual if self.count is None else self.count


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one system; None where a figure has no meaning.

    Attributes:
        name: Of the measurement, with its variant.
        count: Messages handled, all receivers together.
        receivers: Processes that handled them (workers, where all are in one process).
        messages_per_s: From the first message handled to the last; 1/p50 for a round trip.
        p50_ms: From send() to the handler, or there and back for a round trip.
        sender_cpu_us: Processor time a message, without the start of the process.
        lost: Messages that did not arrive; None where the system cannot tell.
        misordered: Messages that arrived out of order.
        duplicates: Messages that arrived again; counted once.
    """

    name: str
    system: System = "pbus"
    count: int
    receivers: int = 1
    messages_per_s: float | None = None
    megabytes_per_s: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    sender_cpu_us: float | None = None
    receiver_cpu_us: float | None = None
    lost: int = 0
    misordered: int = 0
    duplicates: int = 0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its bounds.

    Attributes:
        at_least: The lower bound, or None.
        at_most: The upper bound, or None.
        unit: "" for a ratio.
    """

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    is_met: bool = True

    @classmethod
    def of(
        cls,
        name: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> "Check":
        """A check of a value against its bounds."""
        is_low = at_least is not None and value < at_least
        is_high = at_most is not None and value > at_most
        return cls(
            name=name,
            value=value,
            at_least=at_least,
            at_most=at_most,
            unit=unit,
            is_met=not (is_low or is_high),
        )


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one measurement."""

    rows: tuple[Row, ...] = ()
    checks: tuple[Check, ...] = ()

    def row(self, name: str, system: System = "pbus") -> Row | None:
        """The row of that name, or None."""
        wanted = (name, system)
        return next((row for row in self.rows if (row.name, row.system) == wanted), None)

    def titled(self, title: str) -> "CaseResult":
        """This result, with a title behind each name."""
        rows = (msgspec.structs.replace(row, name=f"{row.name}, {title}") for row in self.rows)
        checks = (msgspec.structs.replace(one, name=f"{one.name}, {title}") for one in self.checks)
        return CaseResult(rows=tuple(rows), checks=tuple(checks))

    def __add__(self, other: "CaseResult") -> "CaseResult":
        return CaseResult(rows=self.rows + other.rows, checks=self.checks + other.checks)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of a measurement.

    Attributes:
        load: Processes that wanted to run in the last minute, on average, before the start.
        broker: Its address, password masked.
        loop: The event loop of the processes.
    """

    python: str
    system: str
    cpus: int
    load: float
    broker: str
    loop: Loop = "asyncio"

    @classmethod
    def here(cls, broker: str, loop: Loop = "asyncio") -> "Environment":
        """This machine, now."""
        return cls(
            python=platform.python_version(),
            system=f"{platform.system()} {platform.machine()}",
            cpus=os.cpu_count() or 1,
            load=round(os.getloadavg()[0], 2),
            broker=broker,
            loop=loop,
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one run.

    Attributes:
        not_measured: What was asked for and is missing here, a sentence each.
    """

    environment: Environment
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    not_measured: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """Messages that pbus lost."""
        return sum(row.lost for row in self.rows if row.system == "pbus")


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that so many percent do not exceed; None without values."""
    if not values:
        return None
    ranked = sorted(values)
    rank = math.ceil(len(ranked) * percent / 100)
    return ranked[max(0, rank - 1)]


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles of delays, in milliseconds."""

    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None

    @classmethod
    def of_seconds(cls, values: Sequence[float]) -> "Percentiles":
        """Percentiles of delays in seconds."""
        millis = [value * 1000 for value in values]
        return cls(
            p50_ms=percentile(millis, 50),
            p90_ms=percentile(millis, 90),
            p99_ms=percentile(millis, 99),
        )


def ratio(value: float | None, to: float | None) -> float:
    """One figure as a multiple of another; 0 where one of them is missing."""
    return value / to if value and to else 0.0
