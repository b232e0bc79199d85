"""Blocked event loops and handlers that take too long: each told at its begin and at its end."""

from collections.abc import Iterator

import msgspec

from pbus.leases import Lease
from pbus.observe import is_unresponsive
from pbus.running_handlers import RunningHandler

_SAME_S = 0.5  # hosts' clocks are converted with the accuracy of the network


class Hang(msgspec.Struct, frozen=True):
    """The begin or end of what keeps a worker from its work.

    Attributes:
        text: For people.
        is_silent: Whether the event loop is blocked now; None where it is not about that.
    """

    text: str
    is_silent: bool | None = None


class HangWatch:
    """Watches one process of a worker by its leases."""

    def __init__(self) -> None:
        self._silent_since: float | None = None
        self._handler: RunningHandler | None = None  # over the limit

    def check(self, lease: Lease, now: float, limit_s: float) -> Iterator[Hang]:
        """The hangs that began or ended since the last check.

        Args:
            lease: Of the process.
            now: Unix seconds.
            limit_s: Seconds that a handler may run before it is told of.
        """
        is_silent = is_unresponsive(lease, now)
        if is_silent and self._silent_since is None:
            self._silent_since = lease.beat
            text = f"its event loop is blocked: no heartbeat for {now - lease.beat:.0f} s"
            yield Hang(text, is_silent=True)
        elif not is_silent and self._silent_since is not None:
            yield Hang(self._end_of_silence(lease.beat), is_silent=False)
        yield from self._check_handler(lease.handler, now, limit_s)

    def close(self, now: float) -> str:
        """The text for a process that ends now, about what had not ended in it; "" of nothing."""
        texts = []
        if self._silent_since is not None:
            texts.append(f"its event loop was blocked for {now - self._silent_since:.0f} s")
        if self._handler is not None:
            texts.append(f"{self._handler} had run for {self._handler.age_s(now):.0f} s")
        self._silent_since = self._handler = None
        return "; ".join(texts)

    def _end_of_silence(self, beat: float) -> str:
        since, self._silent_since = self._silent_since or beat, None
        return f"answers again: its event loop was blocked for {max(0.0, beat - since):.0f} s"

    def _check_handler(
        self, handler: RunningHandler | None, now: float, limit_s: float
    ) -> Iterator[Hang]:
        before = self._handler
        if before is not None and not _is_same(before, handler):
            self._handler = None
            yield Hang(f"{before} has ended after {before.age_s(now):.0f} s")
        if handler is None or self._handler is not None:
            return
        age_s = handler.age_s(now)
        if age_s > limit_s:
            self._handler = handler
            yield Hang(f"in {handler} for {age_s:.0f} s")


def _is_same(one: RunningHandler, other: RunningHandler | None) -> bool:
    """Whether two leases tell of one handler; its begin is converted between clocks, so it wavers."""
    return (
        other is not None
        and (one.name, one.type, one.source) == (other.name, other.type, other.source)
        and abs(one.since - other.since) < _SAME_S
    )
