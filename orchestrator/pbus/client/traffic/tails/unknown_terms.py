"""Names in the conditions of a tail that mean nothing in a project: they are said, not refused."""

import difflib
import fnmatch
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.local.counters import EPHEMERAL_PREFIXES
from pbus.client.addresses import new_name
from pbus.client.status import read_facts
from pbus.client.traffic.acceptance_query import AcceptanceQuery
from pbus.client.traffic.edge_stats import read_merged
from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.type_names import short_type
from pbus.frames import Frame
from pbus.leases import Lease
from pbus.messages import BusFrameMessage, message_types
from pbus.names import is_worker_name, with_groups
from pbus.observe import HostRecord
from pbus.runner.type_checks import UNKNOWN_TYPE
from pbus.stats.merged_stats import MergedStats

_NAMED: Final = 12  # known names that a sentence has
_SUGGESTION: Final = re.compile(r"'([^']+)'")


Kind: TypeAlias = Literal["source", "target", "type"]


class UnknownTerm(msgspec.Struct, frozen=True):
    """A name or pattern that stands for nothing known.

    Attributes:
        kind: The condition that has it.
        name: As it was given.
        known: The nearest known name, or all of them.
    """

    kind: Kind
    name: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        thing = "message type" if self.kind == "type" else "worker"
        verb = "matches" if _is_pattern(self.name) else "is named"
        return f"no {thing} {verb} {self.name!r} so far{_advice(self.known)}"


def _advice(known: Sequence[str]) -> str:
    if not known:
        return ""
    if len(known) == 1:
        return f"; did you mean {known[0]!r}?"
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return f"; there are {', '.join(known[:_NAMED])}{more}"


async def unknown_terms(bus: WorkerBus, chosen: Filter) -> list[UnknownTerm]:
    """The sources, targets and types of a filter that nothing in the project has.

    Args:
        bus: Started.
        chosen: Types that were not seen yet are asked of the workers, which takes at most a second a
            name.

    Raises:
        BusUnavailableError: The broker does not answer.
    """
    if not (chosen.sources or chosen.targets or chosen.types):
        return []
    leases, hosts = await read_facts(bus)
    merged = await read_merged(bus)
    workers = _known_workers(leases, hosts, merged)
    types = _known_types(merged)
    return [
        *_unknown_workers("source", chosen.sources, workers),
        *_unknown_workers("target", chosen.targets, workers),
        *[
            UnknownTerm("type", name, meant)
            for name in chosen.types
            if (meant := await _meant_types(bus, leases, name, types)) is not None
        ],
    ]


def _known_workers(
    leases: Iterable[Lease], hosts: Iterable[HostRecord], merged: MergedStats
) -> set[str]:
    """The workers that are registered, started or were counted, and their groups."""
    processes = {process.name for host in hosts for process in host.processes}
    counted = {name for name in merged.names if is_worker_name(name) and not _is_odd(name)}
    return with_groups({lease.name for lease in leases} | processes | counted)


def _is_odd(name: str) -> bool:
    """Whether counts have it in place of other names, or for addresses that come and go."""
    return name.startswith(("(", *EPHEMERAL_PREFIXES))


def _known_types(merged: MergedStats) -> set[str]:
    """The types of messages and frames that this process knows, or that were counted."""
    types = {*message_types(), *Frame.catalogue.names()}
    types |= {edge.counts.type for edge in merged.edges if edge.counts.type.isidentifier()}
    return types | {short_type(name) for name in types}


def _unknown_workers(kind: Kind, names: Iterable[str], known: Collection[str]) -> list[UnknownTerm]:
    return [
        UnknownTerm(kind, name, _nearest(name, known))
        for name in names
        if not _may_be_address(name) and not _is_known(name, known)
    ]


async def _meant_types(
    bus: WorkerBus, leases: list[Lease], name: str, known: Collection[str]
) -> tuple[str, ...] | None:
    """The types that an unknown name may mean; None where it is known, or may be."""
    if _is_known(name, known):
        return None
    problem = "" if _is_pattern(name) else await _refusal(bus, leases, name)
    if problem is None:
        return None
    return tuple(sorted(set(_SUGGESTION.findall(problem)))) or _nearest(name, known)


def _may_be_address(name: str) -> bool:
    """Whether it stands for everyone, a client, a runner, or a child: addresses that come and go."""
    others = (f"{prefix}x" for prefix in EPHEMERAL_PREFIXES)
    return (
        "@" in name
        or name.startswith(EPHEMERAL_PREFIXES)
        or any(fnmatch.fnmatchcase(other, name) for other in others)
    )


def _is_known(name: str, known: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(one, name) for one in known)


def _is_pattern(name: str) -> bool:
    return any(char in name for char in "*?[")


def _nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    names = sorted(known)
    by_lower = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return (by_lower[near[0]],) if near else tuple(names)


async def _refusal(bus: WorkerBus, leases: list[Lease], name: str) -> str | None:
    """The end of a worker's sentence that it does not know a type; None where one may know it."""
    said = ""
    for kind, fields in ((name, {}), (BusFrameMessage.__name__, {"frame": {"type": name}})):
        refusals = await AcceptanceQuery(bus, new_name()).refusals(leases, kind, fields)
        if leases and not (refusals and all(UNKNOWN_TYPE in text for text in refusals)):
            return None
        if kind == name:  # of frames nothing is suggested
            said = " ".join(text.partition(UNKNOWN_TYPE)[2] for text in refusals)
    return said
