"""The other systems: where each is measured, on which broker, and what it needs."""

import importlib.util
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from pbus.bench.peers.nats_server import program
from pbus.bench.results import System
from pbus.errors import PeersMissingError

_EXTRA: Final = "pip install 'pbus-orchestrator[bench-peers]'"
_PIPECAT: Final = "pip install 'pipecat-ai[redis]'"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another system.

    Attributes:
        cases: Keys of the measurements that have it.
        modules: Those that must be importable.
        backend: The broker that it shares with ours; None for a server of its own.
        has_server: Its server, a program, must be installed, too.
        install: The command that installs it.
    """

    cases: frozenset[str]
    modules: tuple[str, ...]
    backend: Literal["redis", "pgmq"] | None = None
    has_server: bool = False
    install: str = _EXTRA

    def missing(self) -> str | None:
        """Name the first part of it that is not installed, or None."""
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                return f"the Python module {module!r}"
        return "the program 'nats-server'" if self.has_server and program() is None else None


_JOBS: Final = frozenset({"stored-jobs"})

PEERS: Final[dict[System, Peer]] = {
    "nats-py": Peer(cases=frozenset({"fanout", "rtt"}), modules=("nats",), has_server=True),
    "pipecat": Peer(
        cases=frozenset({"fanout"}), modules=("pipecat",), backend="redis", install=_PIPECAT
    ),
    "taskiq": Peer(cases=_JOBS, modules=("taskiq", "taskiq_redis"), backend="redis"),
    "arq": Peer(cases=_JOBS, modules=("arq",), backend="redis"),
    "dramatiq": Peer(cases=_JOBS, modules=("dramatiq",), backend="redis"),
    "procrastinate": Peer(cases=_JOBS, modules=("procrastinate",), backend="pgmq"),
}

# Those that other systems have, too.
PEER_MEASUREMENTS: Final = frozenset(case for peer in PEERS.values() for case in peer.cases)


def peers_in(name: str, backend: str, wanted: Iterable[System]) -> tuple[System, ...]:
    """The systems among those wanted that a measurement on such a broker has."""
    return tuple(
        system
        for system in wanted
        if name in PEERS[system].cases and PEERS[system].backend in {None, backend}
    )


def installed(wanted: Sequence[System]) -> tuple[list[System], list[str]]:
    """Part the systems that are installed from the others.

    Returns:
        The installed ones, and for each of the others a sentence that says what is missing.

    Raises:
        PeersMissingError: None of those wanted is installed.
    """
    missing = {system: PEERS[system].missing() for system in wanted}
    there = [system for system, lack in missing.items() if lack is None]
    lacking = {system: lack for system, lack in missing.items() if lack is not None}
    if lacking and not there:
        first = next(iter(lacking))
        raise PeersMissingError(" and ".join(dict.fromkeys(lacking.values())), PEERS[first].install)
    return there, [
        f"{system}: {lack} is not installed ({PEERS[system].install})"
        for system, lack in lacking.items()
    ]
