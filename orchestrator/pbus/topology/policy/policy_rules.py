"""Rules for the keys in pbus.topology.policy.policy_schema that their types do not express."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from pbus.topology.policy.dependencies import find_cycles
from pbus.topology.policy.policy_build import parse_address, signal_name
from pbus.topology.policy.policy_schema import BUS_LIMITS, PROBES, ProbeSection, RestartSection
from pbus.topology.problems import Place, Problems, did_you_mean, one_of
from pbus.topology.schema import WorkerSection

PlaceOf = Callable[..., Place]

_NOT_ON_BUS = "the program does not join the bus; with `joins: true` it is expected to"
_MOST_PATTERN = 1000  # characters of a regular expression


def check_policies(
    section: WorkerSection, place: PlaceOf, is_given: Callable[..., bool], problems: Problems
) -> None:
    """Note every broken rule of one worker.

    Args:
        section: The worker as checked for its shape.
        place: From keys below the worker to their place in the file.
        is_given: Whether a key below the worker is in the file, valid or not.
        problems: Where to note them.
    """
    joins = section.joins_bus
    for key, probe in (("ready", section.ready), ("health", section.health)):
        if isinstance(probe, ProbeSection) and not _has_wrong_probe(key, probe, is_given):
            _check_probe(probe, joins, lambda *keys, key=key: place(key, *keys), problems)
    _check_line(section, place, problems)
    if isinstance(section.health, ProbeSection):
        _check_health(section.health, lambda key: place("health", key), problems)
    if not joins and getattr(section.limits, "jobs", None) is not None:
        problems.add(place("limits", "jobs"), _NOT_ON_BUS)
    if section.stop is not None and section.stop.signal is not None:
        _check_signal(section.stop.signal, place("stop", "signal"), problems)


def _check_line(section: WorkerSection, place: PlaceOf, problems: Problems) -> None:
    if section.stdio is None and getattr(section.ready, "line", None):
        problems.add(place("ready", "line"), "only a program with `stdio: jsonl` prints that line")


def _check_health(section: ProbeSection, place: PlaceOf, problems: Problems) -> None:
    for key in ("log", "line"):
        if getattr(section, key):
            problems.add(place(key), "a line tells once that a process is ready: use another probe")
    for key in BUS_LIMITS:
        if not section.bus and getattr(section, key) is not None:
            problems.add(place(key), "only `bus` has this limit")


def _has_wrong_probe(key: str, probe: ProbeSection, is_given: Callable[..., bool]) -> bool:
    """Whether a probe was left out of the section because of its type, which is a problem already."""
    return any(getattr(probe, kind) is None and is_given(key, kind) for kind in PROBES)


def _check_signal(text: str, place: Place, problems: Problems) -> None:
    try:
        signal_name(text)
    except ValueError:
        problems.add(place, f"this machine has no signal {text}")


def _check_probe(section: ProbeSection, joins: bool, place: PlaceOf, problems: Problems) -> None:  # noqa: FBT001
    given = [key for key in PROBES if getattr(section, key) not in (None, False)]
    if len(given) != 1:
        got = f"{' and '.join(given)}" if given else "none"
        problems.add(place(), f"expected one of {one_of(PROBES)}, got {got}")
        return
    if (wrong := _PROBLEMS_OF[given[0]](getattr(section, given[0]), joins)) is not None:
        problems.add(place(given[0]), wrong)


def _pattern_problem(text: str, _joins: bool) -> str | None:  # noqa: FBT001
    if len(text) > _MOST_PATTERN:
        return f"expected at most {_MOST_PATTERN} characters"
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return f"not a regular expression: {error}"
    return None


def _url_problem(text: str, _joins: bool) -> str | None:  # noqa: FBT001
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    return None if is_right else "expected a URL like http://127.0.0.1:8000/health"


def _address_problem(text: str, _joins: bool) -> str | None:  # noqa: FBT001
    try:
        parse_address(text)
    except ValueError:
        return "expected HOST:PORT, or a port from 1 to 65535"
    return None


def _bus_problem(_value: object, joins: bool) -> str | None:  # noqa: FBT001
    return None if joins else _NOT_ON_BUS


_PROBLEMS_OF: Mapping[str, Callable[..., str | None]] = {
    "log": _pattern_problem,
    "http": _url_problem,
    "tcp": _address_problem,
    "exec": lambda _value, _joins: None,
    "notify": lambda _value, _joins: None,
    "line": lambda _value, _joins: None,
    "bus": _bus_problem,
}


def check_order(workers: Mapping[str, WorkerSection], place: PlaceOf, problems: Problems) -> None:
    """Note unknown names and cycles of `depends_on`.

    Args:
        workers: All workers of the file.
        place: From keys below `workers` to their place in the file.
        problems: Where to note them.
    """
    waits_for = {name: list(worker.depends_on or ()) for name, worker in workers.items()}
    _check_completion(workers, place, problems)
    for name, others in waits_for.items():
        for other in others:
            if other not in workers:
                advice = did_you_mean(other, workers) or f" (workers: {', '.join(workers)})"
                problems.add(
                    place(name, "depends_on", other), f"no worker is named {other!r}{advice}"
                )
    for cycle in find_cycles(waits_for):
        problems.add(
            place(cycle[0], "depends_on"),
            f"these workers wait for each other: {' → '.join(cycle)}",
        )


def _check_completion(
    workers: Mapping[str, WorkerSection], place: PlaceOf, problems: Problems
) -> None:
    """Note who waits for the end of a worker that is always started again."""
    endless = {name for name, one in workers.items() if _policy_of(one) == "always"}
    for name, worker in workers.items():
        named = worker.depends_on if isinstance(worker.depends_on, dict) else {}
        for other, dependency in named.items():
            if other in endless and getattr(dependency, "condition", None) == "completed":
                problems.add(
                    place(name, "depends_on", other),
                    f"{other} never completes: with `restart: always` it is started again",
                )


def _policy_of(worker: WorkerSection) -> str | None:
    return worker.restart.policy if isinstance(worker.restart, RestartSection) else None
