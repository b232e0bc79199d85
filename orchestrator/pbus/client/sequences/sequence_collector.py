"""Collects a sequence diagram from messages as they pass."""

from collections import deque
from typing import Final

import msgspec

from pbus.client.sequences.sequence_diagram import (
    EVERYONE,
    Arrow,
    Mark,
    MarkKind,
    SequenceDiagram,
    Step,
)
from pbus.client.sequences.step_order import SeenStep, folded_steps, ordered_steps
from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.message_tail import TailMessage
from pbus.client.traffic.type_names import HOUSEKEEPING, short_type
from pbus.messages import BusWorkerStateMessage
from pbus.structs import DECODE_ERRORS
from pbus.trace_context import parent_span_id, span_id_of

MAX_STEPS: Final = 20_000  # the newest are kept
_AFTER_S: Final = 60.0  # so long after the last message ends and starts of its workers are shown
EVERYTHING: Final = Filter()

_REPLIES: Final = ("BusJobResponse", "BusJobUpdate", "BusJobStream")
_KINDS: Final[dict[str, MarkKind]] = {
    "backoff": "end", "exited": "end", "failed": "end", "starting": "start", "ready": "ready",
    "stopping": "trouble", "unhealthy": "trouble", "unresponsive": "trouble",
}  # fmt: skip


class _Fields(msgspec.Struct, frozen=True):
    """The fields of any message that a label is made of."""

    job_name: str | None = None
    status: str | None = None
    frame: "_Tag | None" = None


class _Tag(msgspec.Struct, frozen=True):
    type: str


_decode_fields = msgspec.json.Decoder(_Fields).decode
_decode_state = msgspec.json.Decoder(BusWorkerStateMessage).decode


class SequenceCollector:
    """Collects the steps of a diagram from messages as they pass.

    Args:
        chosen: Only these messages, with the changes of the workers that they are from or for.
        since: Unix seconds; nothing before.
    """

    def __init__(self, chosen: Filter = EVERYTHING, *, since: float = 0.0) -> None:
        self._chosen = chosen
        self._since = since
        self._steps: deque[SeenStep] = deque(maxlen=MAX_STEPS)
        self._left_out = 0

    @property
    def is_chosen(self) -> bool:
        """Whether there are conditions."""
        return self._chosen != EVERYTHING

    def add(self, message: TailMessage) -> None:
        """Take in a message; a change of a worker's state is one, too."""
        if message.time < self._since:
            return
        if message.type == BusWorkerStateMessage.__name__:
            self._add_state(message)
        elif message.type not in HOUSEKEEPING and self._chosen.allows(
            message, message.body, is_urgent=message.is_urgent
        ):
            span, parent = span_id_of(message), parent_span_id(message)
            self._append(SeenStep(_arrow(message), span, parent))

    def diagram(self) -> SequenceDiagram:
        """All that was collected, without changes of workers that had no part in it."""
        steps = ordered_steps(self._steps)
        if self.is_chosen:
            steps = _without_others(steps)
        names: dict[str, None] = {}
        for step in steps:
            if isinstance(step, Arrow):
                names |= {step.source: None, step.target: None}
        names |= {step.worker: None for step in steps if isinstance(step, Mark)}
        everyone = (EVERYONE,) if EVERYONE in names else ()
        participants = (*(name for name in names if name != EVERYONE), *everyone)
        return SequenceDiagram(
            participants=participants, steps=folded_steps(steps), left_out=self._left_out
        )

    def _add_state(self, message: TailMessage) -> None:
        try:
            change = _decode_state(message.body)
        except DECODE_ERRORS:
            return
        kind = _KINDS.get(change.state)
        if kind is not None:
            mark = Mark(
                time=change.time,
                worker=change.worker,
                state=change.state,
                kind=kind,
                detail=change.detail,
            )
            self._append(SeenStep(mark))

    def _append(self, seen: SeenStep) -> None:
        self._left_out += len(self._steps) == MAX_STEPS
        self._steps.append(seen)


def _without_others(steps: list[Step]) -> list[Step]:
    """The messages, and what became of their workers meanwhile and soon after."""
    arrows = [step for step in steps if isinstance(step, Arrow)]
    if not arrows:
        return []
    first, last = arrows[0].time, arrows[-1].time + _AFTER_S
    names = {name for arrow in arrows for name in (arrow.source, arrow.target)}
    return [
        step
        for step in steps
        if isinstance(step, Arrow) or (step.worker in names and first <= step.time <= last)
    ]


def _fields_of(message: TailMessage) -> _Fields:
    try:
        return _decode_fields(message.body)
    except DECODE_ERRORS:
        return _Fields()


def _arrow(message: TailMessage) -> Arrow:
    return Arrow(
        time=message.time,
        source=_worker_of(message.source),
        target=EVERYONE if message.target is None else _worker_of(message.target),
        label=_label(message, _fields_of(message)),
        is_reply=message.type.startswith(_REPLIES) and message.type != "BusJobUpdateRequestMessage",
        is_reached=message.is_reached,
    )


def _worker_of(address: str) -> str:
    """The name of a worker; of a child without the runner."""
    return address.partition("@")[0] or address


def _label(message: TailMessage, own: _Fields) -> str:
    label = short_type(message.type)
    if message.category == "job":
        label = label.removeprefix("Job").removesuffix("Urgent")
    if own.frame is not None:
        label = own.frame.type
    elif label == "Request":
        label = f"{own.job_name or ''}()"
    elif label == "Response":
        label = own.status or label
    return label if message.key is None else f"{label} [{message.key}]"
