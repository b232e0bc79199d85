"""The facts about an ended process of a worker, for its crash capsule."""

import collections
import signal
import time
from typing import Final

import msgspec

from pbus.leases import Lease
from pbus.process.supervisor.worker.usage import Usage
from pbus.stack_values import ProcessStacks
from pbus.topology.model import WorkerSpec

_KEPT_USAGES: Final = 60  # one a second
_SHELL: Final = 128  # and the number of the signal is the exit code of a shell


class EndFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about one end.

    Attributes:
        reason: As text.
        is_error: It is no good end.
        is_told: A command had told the process to end.
        pid: None where no process could be started.
        started: Unix seconds; None likewise.
        ready: Unix seconds; None where it never was.
        ended: Unix seconds.
        code: Its exit code.
        start: The number of the start.
        error: The line that most likely tells the cause.
        open_messages: Fate of the messages it held, as text.
        leases: The last of its workers.
        usage: Of its last minute, with times.
        stacks: Of a process that hung.
        stacks_error: Why there are none.
    """

    reason: str
    is_error: bool
    ended: float
    is_told: bool = False
    pid: int | None = None
    started: float | None = None
    ready: float | None = None
    code: int | None = None
    start: int = 0
    error: str | None = None
    open_messages: str = ""
    leases: tuple[Lease, ...] = ()
    usage: tuple[tuple[float, Usage], ...] = ()
    stacks: ProcessStacks | None = None
    stacks_error: str | None = None


def is_good_end(spec: WorkerSpec, code: int, *, is_told: bool) -> bool:
    """Whether an exit is no error: success, or an end by the signal that a command sent.

    Args:
        spec: The worker's.
        code: The exit code.
        is_told: A command had told the process to end.
    """
    if spec.is_success(code):
        return True
    sent = {signal.SIGTERM, signal.SIGINT, signal.Signals[spec.stop.signal]}
    return is_told and any(code in {-one, _SHELL + one} for one in sent)


class ProcessFacts:
    """Collects facts about the process of a worker.

    Attributes:
        leases: The last leases of its workers, by name.
        stacks: Read before it is killed; or the reason why there are none.
        ended: The facts about its end, until they are taken.
    """

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.stacks: ProcessStacks | str | None = None
        self.ended: EndFacts | None = None
        self._usage: collections.deque[tuple[float, Usage]] = collections.deque(maxlen=_KEPT_USAGES)

    def begin(self) -> None:
        """Forget the process before; its end stays until it is taken."""
        self.leases = {}
        self.stacks = None
        self._usage.clear()

    def add_usage(self, usage: Usage) -> None:
        """Add a measurement."""
        self._usage.append((time.time(), usage))

    def end(self, facts: EndFacts) -> None:
        """Keep the facts about the end, with those that were collected."""
        stacks = self.stacks
        self.ended = msgspec.structs.replace(
            facts,
            leases=tuple(self.leases.values()),
            usage=tuple(self._usage),
            stacks=stacks if isinstance(stacks, ProcessStacks) else None,
            stacks_error=stacks if isinstance(stacks, str) else None,
        )

    def take_end(self) -> EndFacts | None:
        """Return the facts about the last end, once."""
        ended, self.ended = self.ended, None
        return ended
