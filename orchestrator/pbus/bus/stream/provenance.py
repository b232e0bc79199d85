"""On a channel with a key: only the process that has a worker speaks in its name."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from pbus.bus.local.router import PASSING, LocalRouter
from pbus.bus.stream.receiver import BatchCompletion
from pbus.bus.stream.transport import Presence
from pbus.codec import origin_of
from pbus.errors import BusUnavailableError, SourceError
from pbus.leases import Lease, process_of
from pbus.messages import Lane

logger = logging.getLogger(__name__)

_ASK_TIMEOUT_S = 2.0  # then what waits is let in: refusing it by mistake would lose it
_ASK_EVERY_S = 0.02
_RIGHT_S = 10.0  # how long an answer of the registry holds
_WRONG_S = 1.0
_MAX_ANSWERS = 4096
_MAX_WAITING_BYTES = 32 * 1024 * 1024  # of all senders
_Claim = tuple[str, str]  # a sending process, and the worker in whose name it speaks

Put = Callable[[str, Lane, list[bytes], BatchCompletion | None], int]


class _Answer(NamedTuple):
    """What the registry said of a claim; `wrong` says why it is not true."""

    until: float
    wrong: str = ""


class _Parcel(NamedTuple):
    """Messages of one payload that wait."""

    address: str
    lane: Lane
    lines: list[bytes]
    receipt: BatchCompletion | None


class Provenance:
    """Lets in what has a source that its sender may use.

    A source that is the name of a registered worker belongs to the process that holds the lease;
    all others are free. Where the registries of this process do not confirm a claim, the lease
    store is asked before anything is refused, and what the sender sends meanwhile waits in order.

    Args:
        presences: Registries of this process, as there are.
        ask: Reads all leases.
        board: Where refusals are counted and said.
        put: Puts messages into mailboxes.
    """

    def __init__(
        self,
        presences: Sequence[Presence],
        ask: Callable[[], Awaitable[list[Lease]]],
        board: LocalRouter,
        put: Put,
    ) -> None:
        self._presences = presences
        self._ask = ask
        self._board = board
        self._put = put
        self._answers: dict[_Claim, _Answer] = {}
        self._open: set[_Claim] = set()  # claims to be asked about
        self._has_open = asyncio.Event()
        self._waiting: dict[tuple[str, Lane], deque[_Parcel]] = {}
        self._waiting_bytes = 0

    def deliver(
        self,
        sender: str,
        address: str,
        lane: Lane,
        lines: list[bytes],
        receipt: BatchCompletion | None,
    ) -> int:
        """Deliver messages, or have them wait for the registry; see Sink."""
        waiting = self._waiting.get((sender, lane))
        if waiting is None:
            accepted = self._sift(sender, lines)
            if accepted is not None:
                return self._put(address, lane, accepted, receipt) if accepted else 0
        size = sum(map(len, lines))
        if self._waiting_bytes + size > _MAX_WAITING_BYTES:
            who = f"{sender}, while the registry does not answer,"
            self._board.note_lost(who, address, len(lines))
            return 0
        if waiting is None:
            waiting = self._waiting[sender, lane] = deque()
        waiting.append(_Parcel(address, lane, lines, receipt))
        self._waiting_bytes += size
        return 1  # told once it is known how often

    async def run(self) -> None:
        """Ask about claims, until cancelled."""
        while True:
            await self._has_open.wait()
            self._has_open.clear()
            claims, self._open = self._open, set()
            self._note(claims, await self._read_leases())
            self._release()
            await asyncio.sleep(_ASK_EVERY_S)

    def _sift(self, sender: str, lines: list[bytes]) -> list[bytes] | None:
        """What may come in; None: nothing can be said yet."""
        head, source = origin_of(lines[0])
        wrong = self._judge(sender, source)
        others = [line for line in lines if not line.startswith(head)]
        if not others and wrong == "":
            return lines
        verdicts = {head: wrong}
        for line in others:
            head, source = origin_of(line)
            if head not in verdicts:
                verdicts[head] = self._judge(sender, source)
        if None in verdicts.values():
            return None
        return [line for line in lines if self._lets_in(line, verdicts)]

    def _lets_in(self, line: bytes, verdicts: dict[bytes, str | None]) -> bool:
        wrong = verdicts[origin_of(line)[0]]
        if wrong:
            self._board.refuse(SourceError(wrong))
        return not wrong

    def _judge(self, sender: str, source: str) -> str | None:
        """Why a claim is wrong; "" where it is right, None where the registry is to be asked."""
        is_held = False
        for presence in self._presences:
            holder = presence.holder(source)
            if holder == sender:
                return ""
            is_held = is_held or holder is not None
        if not is_held and (self._presences or source.startswith(PASSING)):
            return ""
        if any(presence.was_holder(source, sender) for presence in self._presences):
            return ""
        claim = (sender, source)
        answer = self._answers.get(claim)
        if answer is not None and time.monotonic() < answer.until:
            return answer.wrong
        self._open.add(claim)
        self._has_open.set()
        return None

    async def _read_leases(self) -> list[Lease] | None:
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                return await self._ask()
        except (BusUnavailableError, TimeoutError) as error:
            logger.debug("whose names senders use cannot be asked: %s", error)
        except Exception:
            logger.exception("whose names senders use cannot be asked: a bug in pbus")
        return None

    def _note(self, claims: set[_Claim], leases: list[Lease] | None) -> None:
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

    def _release(self) -> None:
        """Deliver what waited, in order, as far as it is known now where it comes from."""
        for key, waiting in list(self._waiting.items()):
            while waiting:
                accepted = self._sift(key[0], waiting[0].lines)
                if accepted is None:
                    break
                parcel = waiting.popleft()
                self._waiting_bytes -= sum(map(len, parcel.lines))
                self._put_late(parcel, accepted)
            else:
                del self._waiting[key]

    def _put_late(self, parcel: _Parcel, accepted: list[bytes]) -> None:
        count = 0
        if accepted:
            count = self._put(parcel.address, parcel.lane, accepted, parcel.receipt)
        if parcel.receipt is not None:
            parcel.receipt.left += count
            parcel.receipt.done()  # which deliver() announced
