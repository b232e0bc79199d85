"""The keys of a worker that say how its process is treated; see pbus.topology.schema."""

import re
from typing import Annotated, Any

from msgspec import Meta, Struct

from pbus.topology.key_types import Size
from pbus.topology.name_rules import WORKER_PATTERN
from pbus.topology.parsing.durations import (
    DURATION_PATTERN,
    EXPECTED_AGE,
    EXPECTED_DURATION,
    EXPECTED_SILENCE,
    parse_age,
    parse_duration,
    parse_silence,
)
from pbus.topology.parsing.nodes import Entry, Mapping, Node, Scalar, Sequence
from pbus.topology.parsing.sizes import EXPECTED_SIZE, parse_size
from pbus.topology.policy.policies import Condition, OnExit, RestartPolicy

_DURATION_EXTRA = {"expected": EXPECTED_DURATION, "read": parse_duration}
DurationText = int | float | Annotated[str, Meta(pattern=DURATION_PATTERN)]
Words = Annotated[
    list[Annotated[str | int | float | bool, Meta()]],
    Meta(min_length=1, extra={"expected": "a list of words like [curl, -f, localhost]"}),
]
COMPOSE_CONDITIONS = {  # of Docker Compose and of process-compose
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
    "process_started": "started",
    "process_log_ready": "ready",
    "process_healthy": "healthy",
    "process_completed_successfully": "completed",
}
PROBES = ("log", "http", "tcp", "exec", "notify", "line", "bus")
BUS_LIMITS = ("max_silence", "max_handler")
_POLICIES = {
    **dict.fromkeys(("no", "none", "false", "off", "disabled"), "never"),
    **dict.fromkeys(("unless-stopped", "unless_stopped", "yes", "true", "on", "any"), "always"),
    **dict.fromkeys(("on_failure", "on-abnormal", "unexpected", "failure"), "on-failure"),
    "exit_on_failure": "never` with `on_exit: fail",
}
_ON_FAILURE = re.compile(r"on[-_]failure:([0-9]{1,5})")
CONDITIONS = ("started", "ready", "active", "healthy", "completed")


def _keyed(line: int, /, **values: Node) -> Mapping:
    return Mapping(line, {key: Entry(value.line, value) for key, value in values.items()})


def _dependencies(node: Node) -> Node:
    """A list of names, or a map of names to conditions, as a map of names to maps."""
    if isinstance(node, Sequence) and all(isinstance(item, Scalar) for item in node.items):
        names = [item for item in node.items if isinstance(item, Scalar)]
        return Mapping(
            node.line, {one.text: Entry(one.line, Mapping(one.line, {})) for one in names}
        )
    if isinstance(node, Mapping):
        entries = {key: Entry(one.line, _dependency(one.node)) for key, one in node.entries.items()}
        return Mapping(node.line, entries)
    return node


def _dependency(node: Node) -> Node:
    if not isinstance(node, Scalar):
        return node
    return _keyed(node.line, condition=node) if node.text else Mapping(node.line, {})


def _policy(node: Node) -> Node:
    return _keyed(node.line, policy=node) if isinstance(node, Scalar) else node


def suggest_policy(text: str) -> str | None:
    """The policy here for one of Docker Compose, process-compose, systemd or Supervisor."""
    attempts = _ON_FAILURE.fullmatch(text)
    if attempts is not None:  # so many restarts; `max` counts ends
        return f"{{policy: on-failure, max: {int(attempts[1]) + 1}}}"
    return _POLICIES.get(text.lower())


def _probe(node: Node) -> Node:
    """`ready: notify` means `ready: {notify: true}`."""
    if isinstance(node, Scalar) and node.plain and node.text in {"notify", "bus", "line"}:
        return _keyed(node.line, **{node.text: _true(node.line)})
    return node


def _true(line: int) -> Scalar:
    return Scalar(line=line, text="true", plain=True, written="true")


def _health(node: Node) -> Node:
    """As for a probe; limits of the bus may stand below `bus`, and mean it."""
    if not isinstance(node, Mapping):
        return _probe(node)
    entries = dict(node.entries)
    below = entries.get("bus")
    if below is not None and isinstance(below.node, Mapping):
        del entries["bus"]
        entries = {**below.node.entries, **entries}
        entries["bus"] = _keyed(below.line, bus=_true(below.line)).entries["bus"]
    elif not entries.keys() & set(PROBES) and entries.keys() & set(BUS_LIMITS):
        entries["bus"] = Entry(node.line, _true(node.line))
    return Mapping(node.line, entries)


class DependencySection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The condition that a dependency must have reached."""

    condition: Annotated[
        Condition | None,
        Meta(
            description="The state that the dependency must have reached; ready. `completed`: it has"
            " ended well. The spellings of Docker Compose and process-compose are"
            " understood.",
            extra={"aliases": COMPOSE_CONDITIONS},
            extra_json_schema={"enum": [*CONDITIONS, *COMPOSE_CONDITIONS, None]},
        ),
    ] = None
    required: Annotated[
        bool | None,
        Meta(
            description="Whether the worker fails with the dependency; true. With false it is started"
            " as soon as the dependency can no longer reach the condition."
        ),
    ] = None
    restart: Annotated[
        bool | None,
        Meta(description="Whether the worker is restarted when the dependency is; false."),
    ] = None


class ProbeSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to look whether a process is ready or healthy; exactly one key of them."""

    log: Annotated[
        str | None,
        Meta(
            description="A regular expression; ready with the first line of output that it is found in.",
            examples=["listening on port [0-9]+"],
        ),
    ] = None
    http: Annotated[
        str | None,
        Meta(
            description="A URL; a GET must be answered with a status from 200 to 399.",
            examples=["http://127.0.0.1:8000/health"],
        ),
    ] = None
    tcp: Annotated[
        str | int | None,
        Meta(
            description="HOST:PORT, or a port of this machine, that must accept a connection.",
            examples=["127.0.0.1:5432"],
        ),
    ] = None
    exec: Annotated[
        Words | None,
        Meta(
            description="A program and its arguments that must exit with 0; it runs in the worker's"
            " folder and environment.",
            examples=[["pg_isready", "-q"]],
        ),
    ] = None
    notify: Annotated[
        bool | None,
        Meta(
            description="The process sends READY=1 to the socket that $NOTIFY_SOCKET names, as"
            " systemd's sd_notify does."
        ),
    ] = None
    line: Annotated[
        bool | None,
        Meta(description='A program with `stdio: jsonl` prints the line {"ready": true}.'),
    ] = None
    bus: Annotated[
        bool | None,
        Meta(description="The worker is registered on the bus as ready, and its event loop runs."),
    ] = None


class ReadySection(ProbeSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The condition of readiness of a started process."""

    timeout: Annotated[
        DurationText | None,
        Meta(
            description="How long it may take; a process that is not ready in time has failed and is"
            " treated as one that ended with an error; 60s.",
            examples=["30s"],
            extra=_DURATION_EXTRA,
        ),
    ] = None


class HealthSection(ProbeSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The check of a ready process."""

    bus: Annotated[
        bool | None,
        Meta(
            description="The event loop of the worker runs: it sends heartbeats; `max_silence` and"
            " `max_handler` may stand below it, too.",
            extra_json_schema={"anyOf": [{"type": one} for one in ("boolean", "object", "null")]},
        ),
    ] = None
    every: Annotated[
        DurationText | None,
        Meta(
            description="From one check to the next; 10s.", examples=["10s"], extra=_DURATION_EXTRA
        ),
    ] = None
    timeout: Annotated[
        DurationText | None,
        Meta(description="How long a check may take; 5s.", examples=["5s"], extra=_DURATION_EXTRA),
    ] = None
    max_silence: Annotated[
        DurationText | None,
        Meta(
            description="With `bus`: how long the event loop may send no heartbeat, of which one comes"
            " every 2s; 6s.",
            examples=["10s"],
            extra={"expected": EXPECTED_SILENCE, "read": parse_silence},
        ),
    ] = None
    max_handler: Annotated[
        DurationText | None,
        Meta(
            description="With `bus`: how long a handler of a message or job may run.",
            examples=["30s"],
            extra={"expected": EXPECTED_AGE, "read": parse_age},
        ),
    ] = None
    failures: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(description="How many checks in a row must fail; 3."),
    ] = None
    start_period: Annotated[
        DurationText | None,
        Meta(
            description="How long after the start failures do not count; 0s.",
            examples=["30s"],
            extra=_DURATION_EXTRA,
        ),
    ] = None
    restart: Annotated[
        bool | None,
        Meta(description="Whether an unhealthy process is restarted, or only shown; true."),
    ] = None


class BackoffSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pauses between restarts."""

    initial: Annotated[
        DurationText | None,
        Meta(
            description="Before the first restart; 500ms.",
            examples=["500ms"],
            extra=_DURATION_EXTRA,
        ),
    ] = None
    factor: Annotated[
        Annotated[float, Meta(ge=1, le=100)] | None,
        Meta(description="How much longer each next pause is; 2."),
    ] = None
    max: Annotated[
        DurationText | None,
        Meta(description="The longest pause; 30s.", examples=["30s"], extra=_DURATION_EXTRA),
    ] = None
    jitter: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="The share of a pause by which it may differ at random; 0."),
    ] = None


class RestartSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The restarts of a process that has ended."""

    policy: Annotated[
        RestartPolicy | None,
        Meta(
            description="After which ends: never, on-failure or always; on-failure.",
            extra={"suggest": suggest_policy},
        ),
    ] = None
    backoff: Annotated[BackoffSection | None, Meta(description="The pauses between restarts.")] = (
        None
    )
    max: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="How many ends within `within` make the worker a failed one; 5."),
    ] = None
    within: Annotated[
        DurationText | None,
        Meta(
            description="The time in which ends are counted; 60s.",
            examples=["60s"],
            extra=_DURATION_EXTRA,
        ),
    ] = None


class StopSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steps of ending a process."""

    drain: Annotated[
        bool | None,
        Meta(
            description="Whether a worker on the bus first finishes its open jobs and what it has in"
            " hand; true."
        ),
    ] = None
    grace: Annotated[
        DurationText | None,
        Meta(
            description="How long it may take to end by itself before it is killed; 30s for workers on"
            " the bus, 3s after the signal for other programs.",
            examples=["30s"],
            extra=_DURATION_EXTRA,
        ),
    ] = None
    signal: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^(SIG)?[A-Z][A-Z0-9+-]{1,12}$",
                extra={"expected": "the name of a signal like SIGTERM or SIGINT"},
            ),
        ]
        | None,
        Meta(description="The first signal; SIGTERM.", examples=["SIGINT"]),
    ] = None
    command: Annotated[
        Words | None,
        Meta(
            description="A program that is run before the signal, in the worker's folder and"
            " environment; it has `grace` to end.",
            examples=[["redis-cli", "shutdown"]],
        ),
    ] = None


class LimitsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a process that works is replaced by a new one."""

    memory: Annotated[
        Size | None,
        Meta(
            description="The resident memory of the process and those it started (its process"
            " group), as a number of bytes or with a unit (500MB, 2GiB: powers of 1024); over it for"
            " three measurements, one a second, the process is replaced.",
            examples=["500MB"],
            extra={"expected": EXPECTED_SIZE, "read": parse_size},
        ),
    ] = None
    age: Annotated[
        DurationText | None,
        Meta(
            description="The time since its start.",
            examples=["6h"],
            extra={"expected": EXPECTED_AGE, "read": parse_age},
        ),
    ] = None
    jobs: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000_000)] | None,
        Meta(
            description="The number of jobs that a worker on the bus has finished, however they ended.",
            examples=[10000],
        ),
    ] = None


DependsOn = Annotated[
    list[str]
    | dict[Annotated[str, Meta(pattern=WORKER_PATTERN)], Condition | DependencySection | None],
    Meta(extra={"expected": "a list of workers, or a map of workers to conditions"}),
]


def _list(node: Node) -> Node:
    return Sequence(node.line, (node,)) if isinstance(node, Scalar) else node


SHORTHANDS: dict[str, Any] = {
    "env_file": _list,
    "watch": _list,
    "depends_on": _dependencies,
    "restart": _policy,
    "ready": _probe,
    "health": _health,
}
__all__ = [
    "DependsOn",
    "HealthSection",
    "LimitsSection",
    "OnExit",
    "ReadySection",
    "RestartSection",
    "StopSection",
]
