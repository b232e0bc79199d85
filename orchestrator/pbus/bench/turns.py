"""The brokers on which each measurement runs."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from pbus.bench.processes.own_broker import BrokerKind
from pbus.errors import BrokerStartError
from pbus.process.services import postgres_cluster
from pbus.urls import BACKEND_OF_SCHEME, url_scheme

# On brokers that write to disk, which would slow down the others; the rest on a Valkey that does not.
_BROKERS: Final[dict[str, tuple[BrokerKind, ...]]] = {
    "durable": ("valkey-durable",),
    "batch": ("valkey-durable", "postgres"),
    "durable-rtt": ("valkey-durable",),
    "stored-jobs": ("valkey-durable", "postgres"),
    "backlog": ("valkey-durable", "postgres"),
    "held": ("postgres",),
}
_IN_ORDER: Final[tuple[BrokerKind, ...]] = ("valkey", "valkey-durable", "postgres")


class Turn(NamedTuple):
    """One measurement on one broker; `is_second` where another broker has it, too."""

    name: str
    kind: BrokerKind
    is_second: bool = False

    @property
    def backend(self) -> Literal["redis", "pgmq"]:
        """The backend of its bus."""
        return "pgmq" if self.kind == "postgres" else "redis"

    @property
    def title(self) -> str:
        """Its name, with the broker where that is needed to tell it from another."""
        return f"{self.name} on Postgres" if self.is_second else self.name


def turns_on(url: str, names: Sequence[str]) -> list[Turn]:
    """Each measurement once, on the broker of that URL."""
    is_postgres = BACKEND_OF_SCHEME.get(url_scheme(url)) == "pgmq"
    return [Turn(name, "postgres" if is_postgres else "valkey") for name in names]


def turns_on_embedded(names: Sequence[str]) -> tuple[list[Turn], list[str]]:
    """Order measurements on embedded brokers, those on one kind of broker together.

    Returns:
        The turns, and a sentence for each that is left out since Postgres is not installed. Where nothing
        else is asked for none is left out: the start of the server says what to install.
    """
    turns = [turn for name in names for turn in _each_broker(name)]
    turns.sort(key=lambda turn: _IN_ORDER.index(turn.kind))
    on_valkey = [turn for turn in turns if turn.kind != "postgres"]
    if not on_valkey or _has_postgres():
        return turns, []
    return on_valkey, [
        f"{turn.title}: the embedded Postgres is not installed ({postgres_cluster.EXTRA})"
        for turn in turns[len(on_valkey) :]
    ]


def _each_broker(name: str) -> list[Turn]:
    kinds = _BROKERS.get(name, ("valkey",))
    return [Turn(name, kind, is_second=number > 0) for number, kind in enumerate(kinds)]


def _has_postgres() -> bool:
    try:
        postgres_cluster.find_programs()
    except BrokerStartError:
        return False
    return True


def embedded(turns: Sequence[Turn]) -> str:
    """The brokers of turns, for the report."""
    kinds = {"Postgres" if turn.backend == "pgmq" else "Valkey" for turn in turns}
    return f"embedded {' and '.join(sorted(kinds))}"
