"""The runner's answer to queries whether its process would reject a message."""

import difflib
import logging
import time
from collections.abc import Iterable
from typing import Any

from pbus.bus.base import WorkerBus
from pbus.codec import Header, decode_message, decode_opaque, encode_raw
from pbus.errors import MessageError, PbusError, UnknownTypeError
from pbus.messages import BusSystemMessage, Lane, message_types
from pbus.runner.hosted_worker import Worker

logger = logging.getLogger(__name__)

UNKNOWN_TYPE = "its type is unknown there"  # a problem that begins so


class BusAcceptanceRequestMessage(BusSystemMessage):
    """Asks runners whether their processes can decode a message.

    Attributes:
        kind: The message's type.
        fields: The message's own fields.
        workers: The receivers in the runner's process.
    """

    kind: str
    fields: dict[str, Any]
    workers: tuple[str, ...] = ()


class BusAcceptanceResponseMessage(BusSystemMessage):
    """A runner's answer.

    Attributes:
        kind: The type in the query.
        problem: The reason for a rejection; None when there is none.
    """

    runner: str
    kind: str
    problem: str | None = None


async def answer_acceptance(
    bus: WorkerBus, runner: str, workers: Iterable[Worker], request: BusAcceptanceRequestMessage
) -> None:
    """Send the answer to a query.

    Args:
        bus: The runner's.
        runner: The runner's name.
        workers: Those that it hosts.
        request: The query.
    """
    takes_opaque = any(one.takes_opaque for one in workers if one.name in request.workers)
    problem = _problem_of(request, bus.max_message_bytes, takes_opaque=takes_opaque)
    try:
        await bus.send(
            BusAcceptanceResponseMessage(
                source=runner, target=request.source, runner=runner, kind=request.kind,
                problem=problem,
            )
        )  # fmt: skip
    except PbusError as error:
        logger.warning("the type check is not sent to %s: %s", request.source, error)


def _problem_of(
    request: BusAcceptanceRequestMessage, limit: int, *, takes_opaque: bool
) -> str | None:
    header = Header(type=request.kind, source=request.source, target=None, id="?", time=time.time())
    try:
        line = encode_raw(header, request.fields, limit=limit)
        decode_opaque(line, Lane.DATA) if takes_opaque else decode_message(line)
    except UnknownTypeError:
        near = difflib.get_close_matches(request.kind, message_types(), n=1)
        return UNKNOWN_TYPE + (f"; did you mean {near[0]!r}?" if near else "")
    except MessageError as error:
        cause = error.__cause__
        return error.message if cause is None else str(cause)
    return None
