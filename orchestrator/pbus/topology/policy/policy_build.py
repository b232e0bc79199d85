"""The keys of a worker that say how its process is treated, as values with defaults filled in.

The shape was checked: short forms have become the sections that they stand for.
"""

import signal
from typing import Any, TypeVar

from pbus.topology.policy.policies import (
    BusProbe,
    Dependency,
    ExecProbe,
    HealthSpec,
    HttpProbe,
    LimitsSpec,
    LineProbe,
    LogProbe,
    NotifyProbe,
    Probe,
    ReadySpec,
    RestartSpec,
    StopSpec,
    TcpProbe,
)
from pbus.topology.policy.policy_schema import (
    HealthSection,
    LimitsSection,
    ProbeSection,
    ReadySection,
    RestartSection,
    StopSection,
)

T = TypeVar("T")
LOCALHOST = "127.0.0.1"
_MOST_PORT = 65535


def build_dependencies(section: object) -> tuple[Dependency, ...]:
    """Build the dependencies of a worker, in the order of the file."""
    named = section if isinstance(section, dict) else {}
    return tuple(
        _made(
            Dependency,
            worker=name,
            condition=one.condition,
            required=one.required,
            restart=one.restart,
        )
        for name, one in named.items()
    )


def build_ready(section: object) -> ReadySpec | None:
    """Build the condition of readiness."""
    if not isinstance(section, ReadySection):
        return None
    return _made(ReadySpec, probe=build_probe(section), timeout_s=section.timeout)


def build_health(section: object) -> HealthSpec | None:
    """Build the health check."""
    if not isinstance(section, HealthSection):
        return None
    return _made(
        HealthSpec,
        probe=build_probe(section),
        every_s=section.every,
        timeout_s=section.timeout,
        failures=section.failures,
        start_period_s=section.start_period,
        restart=section.restart,
    )


def build_restart(section: object) -> RestartSpec:
    """Build the restart policy."""
    if not isinstance(section, RestartSection):
        return RestartSpec()
    backoff = section.backoff
    return _made(
        RestartSpec,
        policy=section.policy,
        initial_s=backoff and backoff.initial,
        factor=backoff and backoff.factor,
        max_s=backoff and backoff.max,
        jitter=backoff and backoff.jitter,
        max_exits=section.max,
        within_s=section.within,
    )


def build_limits(section: LimitsSection | None) -> LimitsSpec:
    """When a process that works is replaced."""
    if section is None:
        return LimitsSpec()
    return _made(LimitsSpec, memory_bytes=section.memory, age_s=section.age, jobs=section.jobs)


def build_stop(section: StopSection | None) -> StopSpec:
    """Build the steps of ending a process."""
    if section is None:
        return StopSpec()
    return _made(
        StopSpec,
        drain=section.drain,
        grace_s=section.grace,
        signal=signal_name(section.signal) if section.signal else None,
        command=_words(section.command) if section.command else None,
    )


def build_probe(section: ProbeSection) -> Probe:
    """Build the one probe of a checked section."""
    if section.log is not None:
        return LogProbe(section.log)
    if section.http is not None:
        return HttpProbe(section.http)
    if section.tcp is not None:
        return TcpProbe(*parse_address(str(section.tcp)))
    if section.exec is not None:
        return ExecProbe(_words(section.exec))
    if section.notify or section.line:
        return NotifyProbe() if section.notify else LineProbe()
    silence_s = getattr(section, "max_silence", None)
    handler_s = getattr(section, "max_handler", None)
    return _made(BusProbe, max_silence_s=silence_s, max_handler_s=handler_s)


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, [IPv6]:PORT, or a port of this machine.

    Raises:
        ValueError: The text is none of them.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MOST_PORT):
        raise ValueError(text)
    return host.removeprefix("[").removesuffix("]") or LOCALHOST, int(port)


def signal_name(text: str) -> str:
    """The full name of a signal.

    Raises:
        ValueError: This machine has none of that name.
    """
    name = text if text.startswith("SIG") else f"SIG{text}"
    if name not in signal.Signals.__members__:
        raise ValueError(name)
    return name


def _words(words: list[Any]) -> tuple[str, ...]:
    return tuple(str(word) for word in words)


def _made(kind: type[T], **given: Any) -> T:
    """A value of what is given; the rest as the type has it."""
    return kind(**{key: value for key, value in given.items() if value is not None})
