"""One run: payloads at a project until there were enough, and what must hold meanwhile and after."""

import time
from typing import NamedTuple, Protocol

from fuzz.project import Fuzzed
from fuzz.redis_target import RedisTarget
from support.cli_env import CliEnv


class Target(Protocol):
    """Where payloads go."""

    counts: dict[str, int]

    def throw(self) -> int:
        """A batch of payloads; returns how many."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


def _target(broker: str, fuzzed: Fuzzed, seed: int) -> Target:
    if broker != "pgmq":
        return RedisTarget(fuzzed, seed)
    from fuzz.pgmq_target import PgmqTarget  # noqa: PLC0415 - needs asyncpg

    return PgmqTarget(fuzzed, seed)


class Run(NamedTuple):
    """What was done.

    Attributes:
        grown: By how many bytes the process grew that grew most, at each check.
    """

    broker: str
    seed: int
    sent: int
    seconds: float
    counts: dict[str, int]
    grown: list[int]

    def __str__(self) -> str:
        sizes = ", ".join(f"{size / 2**20:.1f}" for size in self.grown)
        return (
            f"{self.broker}: seed {self.seed}, {self.sent:,} payloads in {self.seconds:.0f} s,"
            f" {self.counts}, grown by {sizes} MiB"
        )


def fuzz(broker: str, seed: int, *, count: int, seconds: float, checks: int = 0) -> Run:
    """Fuzz a project of its own.

    Args:
        broker: One of fuzz.project.BROKERS.
        seed: Of all choices.
        count: How many payloads at most.
        seconds: For how long at most.
        checks: How often to check meanwhile.
    """
    with CliEnv() as cli:
        fuzzed = Fuzzed(cli, broker)
        target = _target(broker, fuzzed, seed)
        began, sent = time.monotonic(), 0
        grown: list[int] = []
        try:
            while sent < count and time.monotonic() - began < seconds:
                sent += target.throw()
                share = max(sent / count, (time.monotonic() - began) / seconds)
                if share * (checks + 1) > len(grown) + 1:
                    fuzzed.check()
                    grown.append(fuzzed.grown())
            fuzzed.check()
            grown.append(fuzzed.grown())
            took = time.monotonic() - began
        except AssertionError as error:
            error.add_note(fuzzed.last_words())
            raise
        finally:
            target.close()
            fuzzed.place.tell("down", "--purge", "--timeout", "2")
    return Run(broker, seed, sent, took, target.counts, grown)
