"""The jobs between this process and others, both sides known, so that the loss of one ends them."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import force_setattr

from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.conversion import WireMessage
from pbus.trace_context import traceparent_after

_REQUESTS = frozenset({"BusJobRequestMessage", "BusJobRequestUrgentMessage"})
_ANSWERS = frozenset({
    "BusJobResponseMessage",
    "BusJobResponseUrgentMessage",
    "BusJobStreamEndMessage",
})
_EVENTS = frozenset({
    "BusJobUpdateMessage",
    "BusJobUpdateUrgentMessage",
    "BusJobStreamStartMessage",
    "BusJobStreamDataMessage",
})


@dataclass
class OpenJob:
    """One job that crosses.

    Attributes:
        job_id: The job's.
        requester: The local worker that asked, or the address of the other process' one.
        worker: The other process' worker as it was asked for, or the local one that does it.
        peer: The address of the other side.
        incarnation: Of the other side; "" where it is not registered.
        events: The number of updates and stream messages that were sent.
        traceparent: Of what is sent because of its request; None where that is not known.
    """

    job_id: str
    requester: str
    worker: str
    peer: str
    incarnation: str
    events: int = 0
    traceparent: str | None = None


Key = tuple[str, str]  # job id, address of the other side


class JobLedger:
    """The open jobs that local workers asked others for, and those that others asked them for."""

    def __init__(self) -> None:
        self._asked: dict[Key, OpenJob] = {}
        self._doing: dict[Key, OpenJob] = {}
        self._peers: dict[Key, str] = {}  # by job id and the name that was asked for

    def sent(self, wire: WireMessage, requester: str, asked: str, incarnation: str) -> None:
        """Note a message that leaves; what belongs to a job is given its trace, an answer its events.

        Args:
            wire: The message; its target is the address.
            requester: The local name of its sender.
            asked: The name that it was addressed to.
            incarnation: Of the receiver.
        """
        kind, job_id, peer = wire.type_name, wire.values.get("job_id"), wire.target
        if job_id is None or peer is None:
            return
        key = (job_id, peer)
        if kind in _REQUESTS:
            self._asked[key] = OpenJob(job_id, requester, asked, peer, incarnation)
            self._peers[job_id, asked] = peer
        elif kind in _EVENTS and (job := self._doing.get(key)) is not None:
            job.events += 1
            force_setattr(wire, "traceparent", job.traceparent)
        elif kind in _ANSWERS and (job := self._doing.pop(key, None)) is not None:
            force_setattr(wire, "traceparent", job.traceparent)
            if job.events:
                wire.values["events"] = job.events

    def received(self, wire: WireMessage, worker: str, incarnation_of: Callable[[str], str]) -> str:
        """Note a message that comes in.

        Args:
            wire: The message.
            worker: The local name of its receiver.
            incarnation_of: Returns the incarnation of a sender.

        Returns:
            The name of its sender as the local worker knows it: that which it asked.
        """
        kind, job_id, peer = wire.type_name, wire.values.get("job_id"), wire.source
        if job_id is None:
            return peer
        key = (job_id, peer)
        if kind in _REQUESTS:
            trace = traceparent_after(wire)
            self._doing[key] = OpenJob(
                job_id, peer, worker, peer, incarnation_of(peer), traceparent=trace
            )
            return peer
        job = self._forget(key) if kind in _ANSWERS else self._asked.get(key)
        return peer if job is None else job.worker

    def answered(self, job_id: str, peer: str) -> None:
        """Forget a job that was answered without its worker."""
        self._doing.pop((job_id, peer), None)

    def address_of(self, job_id: str | None, name: str) -> str | None:
        """The address that a job of this name was sent to; None where none is open."""
        return None if job_id is None else self._peers.get((job_id, name))

    def lose(self, peer: str, incarnation: str) -> tuple[list[OpenJob], list[OpenJob]]:
        """The jobs that waited for an incarnation that is lost, and those done for it; forgets these."""
        asked = [job for job in self._asked.values() if _is_of(job, peer, incarnation)]
        doing = [job for job in self._doing.values() if _is_of(job, peer, incarnation)]
        for job in doing:
            self.answered(job.job_id, job.peer)
        return asked, doing

    def end(self, job: OpenJob) -> bool:
        """Forget a job that a worker is waited for; returns whether it was still open."""
        return self._forget((job.job_id, job.peer)) is not None

    def _forget(self, key: Key) -> OpenJob | None:
        job = self._asked.pop(key, None)
        if job is not None:
            self._peers.pop((job.job_id, job.worker), None)
        return job


def _is_of(job: OpenJob, peer: str, incarnation: str) -> bool:
    return job.peer == peer and job.incarnation in {"", incarnation}


def failed_answer(job: OpenJob, text: str, kind: str) -> theirs.BusMessage:
    """The answer in place of one that will not come.

    Args:
        job: The job; its worker is the sender.
        text: The reason.
        kind: The class of pbus' error.
    """
    return theirs.BusJobResponseMessage(
        source=job.worker,
        target=job.requester,
        job_id=job.job_id,
        status="error",
        response={"error": text, "type": kind},
    )


def abandoned_cancel(job: OpenJob, reason: str) -> theirs.BusMessage:
    """The cancel in place of a lost requester's."""
    return theirs.BusJobCancelMessage(
        source=job.requester,
        target=job.worker,
        job_id=job.job_id,
        reason=f"its requester was lost: {reason}",
    )
