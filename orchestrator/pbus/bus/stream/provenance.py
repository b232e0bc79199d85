"""On a channel with a key: only the process that has a worker speaks in its name."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from pbus.bus.claims import Claim, Claims
from pbus.bus.local.router import LocalRouter
from pbus.bus.stream.receiver import Completion
from pbus.codec import origin_of
from pbus.errors import SourceError
from pbus.messages import Lane

_ASK_EVERY_S = 0.02
_MAX_WAITING_BYTES = 32 * 1024 * 1024  # of all senders

Put = Callable[[str, Lane, list[bytes], Completion], int]


class _PendingBatch(NamedTuple):
    """Messages of one payload that wait."""

    address: str
    lane: Lane
    lines: list[bytes]
    completion: Completion


class Provenance:
    """Lets in what has a source that its sender may use; see Claims.

    What a sender sends while the lease store is asked waits in order.

    Args:
        claims: Say whose names are used rightly.
        board: Where refusals are counted and said.
        put: Puts messages into mailboxes.
    """

    def __init__(self, claims: Claims, board: LocalRouter, put: Put) -> None:
        self._claims = claims
        self._router = board
        self._put = put
        self._open: set[Claim] = set()  # claims to be asked about
        self._has_open = asyncio.Event()
        self._waiting: dict[tuple[str, Lane], deque[_PendingBatch]] = {}
        self._waiting_bytes = 0

    def deliver(
        self,
        sender: str,
        address: str,
        lane: Lane,
        lines: list[bytes],
        completion: Completion,
    ) -> int:
        """Deliver messages, or have them wait for the registry; see Sink."""
        waiting = self._waiting.get((sender, lane))
        if waiting is None:
            accepted = self._sift(sender, lines)
            if accepted is not None:
                return self._put(address, lane, accepted, completion) if accepted else 0
        size = sum(map(len, lines))
        if self._waiting_bytes + size > _MAX_WAITING_BYTES:
            who = f"{sender}, while the registry does not answer,"
            self._router.note_lost(who, address, len(lines))
            return 0
        if waiting is None:
            waiting = self._waiting[sender, lane] = deque()
        waiting.append(_PendingBatch(address, lane, lines, completion))
        self._waiting_bytes += size
        return 1  # told once it is known how often

    async def run(self) -> None:
        """Ask about claims, until cancelled."""
        while True:
            await self._has_open.wait()
            self._has_open.clear()
            claims, self._open = self._open, set()
            await self._claims.look(claims)
            self._release()
            await asyncio.sleep(_ASK_EVERY_S)

    def _sift(self, sender: str, lines: list[bytes]) -> list[bytes] | None:
        """Return what may come in; None: nothing can be said yet."""
        head, source = origin_of(lines[0])
        wrong = self._judge(sender, source)
        # What begins alike is neighbours in order: the first and the last speak for all.
        if wrong == "" and min(lines).startswith(head) and max(lines).startswith(head):
            return lines
        verdicts = {head: wrong}
        for line in lines:
            head, source = origin_of(line)
            if head not in verdicts:
                verdicts[head] = self._judge(sender, source)
        if None in verdicts.values():
            return None
        return [line for line in lines if self._lets_in(line, verdicts)]

    def _lets_in(self, line: bytes, verdicts: dict[bytes, str | None]) -> bool:
        wrong = verdicts[origin_of(line)[0]]
        if wrong:
            self._router.refuse(SourceError(wrong))
        return not wrong

    def _judge(self, sender: str, source: str) -> str | None:
        """See Claims; what is to be asked about will be."""
        wrong = self._claims.judge(sender, source)
        if wrong is None:
            self._open.add((sender, source))
            self._has_open.set()
        return wrong

    def _release(self) -> None:
        """Deliver what waited, in order, as far as it is known now where it comes from."""
        for key, waiting in list(self._waiting.items()):
            while waiting:
                accepted = self._sift(key[0], waiting[0].lines)
                if accepted is None:
                    break
                batch = waiting.popleft()
                self._waiting_bytes -= sum(map(len, batch.lines))
                self._put_late(batch, accepted)
            else:
                del self._waiting[key]

    def _put_late(self, batch: _PendingBatch, accepted: list[bytes]) -> None:
        count = 0
        if accepted:
            count = self._put(batch.address, batch.lane, accepted, batch.completion)
        batch.completion.left += count
        batch.completion.done()  # which deliver() announced
