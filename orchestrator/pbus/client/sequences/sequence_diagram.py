"""A sequence diagram: messages between workers, and the ends and starts of workers."""

from typing import Final, Literal, TypeAlias

import msgspec

EVERYONE: Final = "*"

MarkKind: TypeAlias = Literal["end", "start", "ready", "trouble"]


class Arrow(msgspec.Struct, frozen=True, kw_only=True):
    """A message, or several of one kind in a row.

    Attributes:
        time: Of the first one, Unix seconds.
        source: Without the runner, where it is a child.
        target: Likewise; `*` for everyone.
        is_reply: It answers a job, or tells of its progress.
        is_reached: A process was there to take it.
        count: How many.
    """

    time: float
    source: str
    target: str
    label: str
    is_reply: bool = False
    is_reached: bool = True
    count: int = 1


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a worker's state."""

    time: float
    worker: str
    state: str
    kind: MarkKind
    detail: str = ""


Step: TypeAlias = Arrow | Mark


class SequenceDiagram(msgspec.Struct, frozen=True, kw_only=True):
    """The events, in the order in which they were seen.

    Attributes:
        participants: Those that sent or were sent something, in order of appearance.
        left_out: Earlier steps, of which there were too many.
    """

    participants: tuple[str, ...]
    steps: tuple[Step, ...]
    left_out: int = 0

    @property
    def messages(self) -> int:
        """The number of messages."""
        return sum(step.count for step in self.steps if isinstance(step, Arrow))
