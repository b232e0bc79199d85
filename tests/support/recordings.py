"""Messages as recordings have them."""

import msgspec

from pbus.client.recordings.recording import RecordedMessage
from pbus.codec import encode_message
from pbus.messages import (
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    JobStatus,
)


class ReplayedNote(BusDataMessage):
    """A message of the test's own."""

    text: str = ""


def recorded(message, **about):
    body = msgspec.Raw(encode_message(message))
    return RecordedMessage(at=message.time, lane=str(message.lane), message=body, **about)


def note(at, source, target, text=""):
    return ReplayedNote(source=source, target=target, text=text, time=at)


def request(at, source, target, job_id, payload=None):
    return BusJobRequestMessage(
        source=source, target=target, job_id=job_id, job_name="look", payload=payload, time=at
    )


def response(at, source, target, job_id, **data):
    return BusJobResponseMessage(
        source=source,
        target=target,
        job_id=job_id,
        status=JobStatus.COMPLETED,
        response=data,
        time=at,
    )
