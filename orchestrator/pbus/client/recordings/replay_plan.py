"""The plan of a replay: which messages of a recording are sent, and by whose names."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from pbus.bus.local.counters import EPHEMERAL_PREFIXES
from pbus.client.addresses import CLIENT_PREFIX
from pbus.client.recordings.recording import RecordedMessage, Recording
from pbus.codec import Header
from pbus.errors import MessageDecodeError, ReplayError
from pbus.names import group_of, is_worker_name, names_of, with_groups
from pbus.structs import DECODE_ERRORS

# About workers that are there, credit, and the ends of processes: no part of what was said.
UNSAID: Final = frozenset({
    "BusAcceptanceRequestMessage", "BusAcceptanceResponseMessage", "BusProbeMessage",
    "BusWorkerRegistryMessage", "BusWorkerReadyMessage", "BusWorkerStateMessage",
    "BusJobCreditMessage", "BusJobCreditRequestMessage",
    "BusControlRequestMessage", "BusControlResponseMessage",
    "BusPlanRequestMessage", "BusPlanResponseMessage",
    "BusJobsRequestMessage", "BusJobsResponseMessage",
    "BusJobCancelRequestMessage", "BusJobCancelResponseMessage",
    "BusEndMessage", "BusCancelMessage", "BusEndWorkerMessage", "BusCancelWorkerMessage",
})  # fmt: skip
REQUESTS: Final = ("BusJobRequestMessage", "BusJobRequestUrgentMessage")
ENDS: Final = (
    "BusJobResponseMessage", "BusJobResponseUrgentMessage", "BusJobStreamEndMessage"
)  # fmt: skip
ANSWERS: Final = (
    *ENDS, "BusJobUpdateMessage", "BusJobUpdateUrgentMessage", "BusJobStreamStartMessage",
    "BusJobStreamDataMessage",
)  # fmt: skip


class SaidMessage(msgspec.Struct, frozen=True):
    """A message of a recording that is neither housekeeping nor a copy.

    Attributes:
        fields: Its own and those of the header, decoded.
    """

    recorded: RecordedMessage
    header: Header
    fields: dict[str, Any]

    @property
    def job_id(self) -> str | None:
        """The id of the job that it is about."""
        job_id = self.fields.get("job_id")
        is_job = self.header.type.startswith("BusJob") and isinstance(job_id, str)
        return job_id if is_job else None

    @property
    def is_of_client(self) -> bool:
        """Whether a client sent it."""
        return self.header.source.startswith(CLIENT_PREFIX)


class ReplayRoles(msgspec.Struct, frozen=True):
    """Whose messages are sent, and whose are compared.

    Attributes:
        senders: The sources whose messages are sent.
        stand_ins: The workers among them, which are joined to the bus in their place.
        clients: The clients among them.
        real: The workers that answer for themselves.
        absent: Workers whose messages are not sent, and that do not run.
    """

    senders: frozenset[str]
    stand_ins: tuple[str, ...]
    clients: tuple[str, ...]
    real: frozenset[str]
    absent: tuple[str, ...] = ()


def said_messages(recording: Recording) -> list[SaidMessage]:
    """The messages that workers and clients said to each other, by the times of their making."""
    found = [said for one in recording.messages if (said := said_message(one)) is not None]
    return sorted(found, key=lambda said: said.header.time)


def said_message(recorded: RecordedMessage) -> SaidMessage | None:
    """A message that workers or clients said; None for others, and for what is none."""
    try:
        header = recorded.header
        fields = msgspec.json.decode(recorded.line, type=dict[str, Any])
    except (MessageDecodeError, *DECODE_ERRORS):
        return None
    if recorded.local or header.type in UNSAID:
        return None
    return SaidMessage(recorded, header, fields)


def roles_of(
    messages: Iterable[SaidMessage],
    running: Iterable[str],
    *,
    only: str | None,
    stand_ins: Iterable[str],
) -> ReplayRoles:
    """Choose whose messages are sent.

    Args:
        messages: Of the recording.
        running: The workers that run.
        only: Send messages to this worker only, in the place of all that do not run.
        stand_ins: Workers to stand in for.

    Raises:
        ReplayError: Nothing would be sent, a worker is not in the recording, or one that is stood in
            for runs.
    """
    messages, there = list(messages), with_groups(running)
    sources = {said.header.source for said in messages}
    targets = {said.header.target or "" for said in messages}
    workers = set(filter(_is_worker, sources | targets))
    clients = {said.header.source for said in messages if said.is_of_client}
    chosen = _absent(_members(stand_ins, workers), there)
    own = set() if only is None else _running(only, _members([only], workers), there)
    if only is not None:
        chosen |= workers - there - own
    senders = (clients | chosen) & sources
    if not senders:
        hint = "--as WORKER sends the messages of a worker"
        raise ReplayError("no message was sent by a client or a chosen worker", hint=hint)
    return ReplayRoles(
        senders=frozenset(senders),
        stand_ins=tuple(sorted(chosen.difference(map(group_of, workers)))),
        clients=tuple(sorted(clients)),
        real=frozenset(own or workers - chosen),
        absent=tuple(sorted((sources & workers) - there - chosen - own)),
    )


def _absent(chosen: set[str], running: set[str]) -> set[str]:
    """The workers to stand in for; one that runs is an error."""
    if taken := sorted(chosen & running):
        problem = f"{taken[0]!r} runs, so nothing can stand in for it"
        raise ReplayError(problem, hint=f"pbus stop {taken[0]}")
    return chosen


def _running(name: str, members: set[str], running: set[str]) -> set[str]:
    """The workers of a name; one that does not run is an error."""
    if not members & running:
        raise ReplayError(f"{name!r} does not run", hint=f"pbus start {name}")
    return members


def _is_worker(name: str) -> bool:
    """Whether an address is of a worker that others know, and no child, client, runner or supervisor."""
    return is_worker_name(name) and not name.startswith(EPHEMERAL_PREFIXES)


def _members(wanted: Iterable[str], workers: set[str]) -> set[str]:
    """The workers that names stand for: replicas by the name of their group, too."""
    found: set[str] = set()
    for name in wanted:
        members = {worker for worker in workers if name in names_of(worker)}
        if not members:
            raise ReplayError(f"no message in it is from or for a worker {name!r}")
        found |= members
    return found


def planned(
    messages: Iterable[SaidMessage], roles: ReplayRoles, *, only: str | None
) -> list[SaidMessage]:
    """The messages to send, in order: answers of stand-ins are none, they follow requests."""
    return [
        said
        for said in messages
        if said.header.source in roles.senders
        and not (said.header.type in ANSWERS and said.header.source in roles.stand_ins)
        and _is_for(said.header.target, only)
    ]


def _is_for(target: str | None, only: str | None) -> bool:
    return only is None or target is None or only in names_of(target)
