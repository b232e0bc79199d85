"""Messages over which processes end: the answer to a job that is one."""

from pbus.bus.queues.store import StoredMessage
from pbus.codec import decode_message
from pbus.errors import MessageDecodeError
from pbus.messages import BusJobRequestMessage, BusJobResponseMessage, JobStatus


def answer_to(stored: StoredMessage, reason: str) -> BusJobResponseMessage | None:
    """The error that answers a job; None where the message is no job."""
    try:
        message = decode_message(stored.body)
    except MessageDecodeError:
        return None
    if not isinstance(message, BusJobRequestMessage):
        return None
    return BusJobResponseMessage(
        source=stored.queue,
        target=message.source,
        job_id=message.job_id,
        status=JobStatus.ERROR,
        response={"error": reason, "type": "dead-lettered"},
    )
