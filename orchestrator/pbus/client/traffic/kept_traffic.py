"""Messages of the past: the traffic history of a project on this machine."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.message_tail import Choice, TailMessage
from pbus.client.traffic.type_names import category_of
from pbus.codec import Header
from pbus.messages import STATES_ADDRESS, BusWorkerStateMessage
from pbus.process.project.history.run_history import read_events
from pbus.process.project.history.traffic_history import KeptMessage, Missed, read_traffic
from pbus.process.project.project import Project

_SUPERVISOR: Final = "supervisor"


class PastMessage(msgspec.Struct, frozen=True):
    """A message of the past.

    Attributes:
        at: When it was seen, Unix seconds by the clock of the supervisor's machine.
        missed: Messages that passed unseen between the last one that was seen and this.
        message: Its header; None at the end, where the last ones passed unseen.
    """

    at: float
    missed: int
    message: TailMessage | None


def read_past(
    project: Project,
    chosen: Filter,
    takes: Callable[[float], bool] = lambda _at: True,
    on_damage: Callable[[], object] = lambda: None,
) -> Iterator[PastMessage]:
    """Yield the messages that were kept and meet the conditions, oldest first: headers only.

    Args:
        project: Whose.
        chosen: What its pattern looks at is the header as JSON.
        takes: Whether the time when a message was seen is one that is meant.
        on_damage: Called for each damaged line.

    Raises:
        OSError: The history cannot be read.
    """
    choice = Choice(chosen)
    missed, at = 0, 0.0
    for entry in read_traffic(project, on_damage):
        if not takes(entry.at):
            continue
        if isinstance(entry.what, Missed):
            missed, at = missed + entry.what.count, entry.at
        elif _is_meant(entry.what, chosen) and choice.takes(message := _tail_message(entry.what)):
            yield PastMessage(entry.at, missed, message)
            missed = 0
    if missed:
        yield PastMessage(at, missed, None)


def read_states(project: Project) -> Iterator[TailMessage]:
    """Yield the state changes of workers that were kept, as the messages that told them.

    Args:
        project: Whose.

    Raises:
        OSError: They cannot be read.
    """
    kind = BusWorkerStateMessage.__name__
    for event in read_events(project):
        fields = {"type": kind, "source": _SUPERVISOR, **msgspec.structs.asdict(event)}
        yield TailMessage(
            time=event.time,
            id="",
            type=kind,
            category="system",
            source=_SUPERVISOR,
            target=STATES_ADDRESS,
            size_bytes=0,
            is_urgent=True,
            body=msgspec.json.encode(fields),
        )


def _is_meant(kept: KeptMessage, chosen: Filter) -> bool:
    return chosen.allows(_header(kept), _body(kept), is_urgent=kept.is_urgent)


def _header(kept: KeptMessage) -> Header:
    return Header(
        type=kept.type, source=kept.source, target=kept.target, id=kept.id, time=kept.time,
        key=kept.key, traceparent=kept.traceparent,
    )  # fmt: skip


def _body(kept: KeptMessage) -> bytes:
    """The message as far as it was kept, for conditions that look into it."""
    fields: dict[str, Any] = msgspec.structs.asdict(_header(kept))
    own = {"job_id": kept.job_id, "job_name": kept.job_name, "status": kept.status}
    fields |= {name: value for name, value in own.items() if value is not None}
    if kept.frame is not None:
        fields["frame"] = {"type": kept.frame}
    return msgspec.json.encode(fields)


def _tail_message(kept: KeptMessage) -> TailMessage:
    return TailMessage(
        time=kept.time,
        id=kept.id,
        type=kept.type,
        category=category_of(kept.type, is_urgent=kept.is_urgent),
        source=kept.source,
        target=kept.target,
        size_bytes=kept.size_bytes,
        is_urgent=kept.is_urgent,
        is_reached=kept.is_reached,
        is_local=kept.is_local,
        key=kept.key,
        traceparent=kept.traceparent,
        body=_body(kept),
        has_body=False,
    )
