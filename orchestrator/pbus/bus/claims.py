"""Claims to names: judged by the registries of this process, then by the lease store."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from pbus.bus.local.counters import EPHEMERAL_PREFIXES
from pbus.errors import BusUnavailableError
from pbus.leases import Lease, process_of

logger = logging.getLogger(__name__)

_ASK_TIMEOUT_S = 2.0  # then what waits is let in: refusing it by mistake would lose it
_RIGHT_S = 10.0  # how long an answer of the registry holds
_WRONG_S = 1.0
_MAX_ANSWERS = 4096
Claim = tuple[str, str]  # a sending process, and the worker in whose name it speaks


class Presence(Protocol):
    """A registry's knowledge of processes, by their incarnations.

    Attributes:
        is_live: Whether it hears of changes as they happen; a name of which it does not know may be taken
            otherwise.
        on_asked: Called where that matters.
    """

    is_live: bool
    on_asked: Callable[[], object]

    def is_over(self, process: str) -> bool:
        """Whether a process had workers, and its last one is gone."""
        ...

    def holder(self, name: str) -> str | None:
        """The process that has a worker of this name."""
        ...

    def was_holder(self, name: str, process: str) -> bool:
        """Whether a process had a worker of this name until a moment ago."""
        ...


class _Answer(NamedTuple):
    """The registry's answer to a claim; `wrong` says why it is not true."""

    until: float
    wrong: str = ""


class Claims:
    """Judges claims: the name of a registered worker belongs to the process that holds its lease.

    All other names are free. Where the registries of this process do not confirm a claim, the lease
    store is asked before it is called wrong.

    Args:
        presences: Registries of this process, as there are.
        ask: Reads all leases.
    """

    def __init__(
        self, presences: Sequence[Presence], ask: Callable[[], Awaitable[list[Lease]]]
    ) -> None:
        self._presences = presences
        self._ask = ask
        self._answers: dict[Claim, _Answer] = {}

    def judge(self, sender: str, source: str) -> str | None:
        """Return why a claim is wrong; "" where it is right, None where look() is to be called."""
        if self._is_confirmed(sender, source):
            return ""
        answer = self._answers.get((sender, source))
        if answer is not None and time.monotonic() < answer.until:
            return answer.wrong
        return None

    def _is_confirmed(self, sender: str, source: str) -> bool:
        """Whether a registry here says that the name is the sender's, or free."""
        holders = {presence.holder(source) for presence in self._presences}
        if sender in holders:
            return True
        if not all(presence.is_live for presence in self._presences):
            return False
        if holders <= {None} and (self._presences or source.startswith(EPHEMERAL_PREFIXES)):
            return True
        return any(presence.was_holder(source, sender) for presence in self._presences)

    async def look(self, claims: Iterable[Claim]) -> None:
        """Ask the lease store about claims; what it does not answer in time is right."""
        for presence in self._presences:
            if not presence.is_live:
                presence.on_asked()
        self._note(list(claims), await self._read_leases())

    async def wrong(self, claims: Iterable[Claim]) -> dict[Claim, str]:
        """Those of the claims that are wrong, and why."""
        verdicts = {claim: self.judge(*claim) for claim in claims}
        unknown = [claim for claim, verdict in verdicts.items() if verdict is None]
        if unknown:
            await self.look(unknown)
            verdicts |= {claim: self.judge(*claim) for claim in unknown}
        return {claim: verdict for claim, verdict in verdicts.items() if verdict}

    async def _read_leases(self) -> list[Lease] | None:
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                return await self._ask()
        except (BusUnavailableError, TimeoutError) as error:
            logger.debug("whose names senders use cannot be asked: %s", error)
        except Exception:
            logger.exception("whose names senders use cannot be asked: a bug in pbus")
        return None

    def _note(self, claims: list[Claim], leases: list[Lease] | None) -> None:
        if len(self._answers) + len(claims) > _MAX_ANSWERS:
            self._answers.clear()
        processes = {lease.name: process_of(lease.incarnation) for lease in leases or ()}
        now = time.monotonic()
        for sender, source in claims:
            if processes.get(source, sender) == sender:
                self._answers[sender, source] = _Answer(
                    now + (_WRONG_S if leases is None else _RIGHT_S)
                )
            else:
                own = ", ".join(name for name, process in processes.items() if process == sender)
                wrong = (
                    f"its source is {source!r}, a worker of process {processes[source]};"
                    f" it came from process {sender} ({own or 'which has no worker'})"
                )
                self._answers[sender, source] = _Answer(now + _WRONG_S, wrong)
