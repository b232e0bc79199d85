"""Requests with their answers: jobs, and messages that a handler answered to their sender."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any, Final, Self

import msgspec

from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.message_tail import (
    MessageTail,
    TailMessage,
    decoded_fields,
    message_fields,
)
from pbus.names import names_of
from pbus.structs import DECODE_ERRORS
from pbus.trace_context import parent_span_id, span_id_of

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024  # of requests without an answer
_OVERHEAD: Final = 1024  # bytes of a message besides its body

_REQUESTS: Final = frozenset({"BusJobRequestMessage", "BusJobRequestUrgentMessage"})
_ANSWERS: Final = frozenset({
    "BusJobResponseMessage",
    "BusJobResponseUrgentMessage",
    "BusJobStreamEndMessage",
})
_JOB_ENDS: Final = _REQUESTS | _ANSWERS


class MessagePair(msgspec.Struct, frozen=True, kw_only=True):
    """A request and its answer.

    Attributes:
        request: A job's request, or any message whose handler sent one to its sender.
        answer: None where none has come.
        status: The end of the job: "completed", "cancelled", "failed" or "error"; None for other
            messages, and while there is no answer.
    """

    request: TailMessage
    answer: TailMessage | None = None
    status: str | None = None

    @property
    def time(self) -> float:
        """The time at which the answer was made, Unix seconds; the request where there is none."""
        return (self.answer or self.request).time

    @property
    def seconds(self) -> float | None:
        """From the making of the request to that of the answer, by their senders' clocks."""
        return None if self.answer is None else max(0.0, self.answer.time - self.request.time)

    @property
    def without_bodies(self) -> Self:
        """The headers of both only."""
        answer = None if self.answer is None else self.answer.without_body
        return msgspec.structs.replace(self, request=self.request.without_body, answer=answer)


def pair_fields(pair: MessagePair, *, is_decoded: bool = False) -> dict[str, Any]:
    """All that is known of a pair, by name: what it is matched by, and what programs read.

    Args:
        pair: The pair.
        is_decoded: Decode the messages' own fields.
    """
    fields = decoded_fields if is_decoded else message_fields
    return {
        "request": fields(pair.request),
        "answer": None if pair.answer is None else fields(pair.answer),
        "seconds": pair.seconds,
        "status": pair.status,
    }


class _JobParts(msgspec.Struct, frozen=True):
    job_id: str = ""
    status: str = "completed"  # of the end of a stream, which says no more


_decode_job = msgspec.json.Decoder(_JobParts).decode


def _job_of(message: TailMessage) -> _JobParts:
    try:
        return _decode_job(message.body)
    except DECODE_ERRORS:
        return _JobParts()


class _Waiting:
    """Requests that wait for their answer, bounded in bytes: the oldest fall.

    Attributes:
        fallen: How many fell.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._requests: OrderedDict[Hashable, TailMessage] = OrderedDict()
        self.fallen = 0

    def add(self, key: Hashable, request: TailMessage) -> None:
        """Have a request wait under a key."""
        self.pop(key)
        self._requests[key] = request
        self._bytes += _size(request)
        while self._bytes > self._max_bytes:
            _, oldest = self._requests.popitem(last=False)
            self._bytes -= _size(oldest)
            self.fallen += 1

    def __contains__(self, key: Hashable) -> bool:
        return key in self._requests

    def pop(self, key: Hashable) -> TailMessage | None:
        """The request of that key, which waits no longer."""
        request = self._requests.pop(key, None)
        if request is not None:
            self._bytes -= _size(request)
        return request

    def drain(self) -> Iterator[TailMessage]:
        """All that wait, oldest first; they wait no longer."""
        while self._requests:
            _, request = self._requests.popitem(last=False)
            self._bytes -= _size(request)
            yield request


def _size(message: TailMessage) -> int:
    return _OVERHEAD + len(message.body)


class Pairing:
    """Finds the requests of answers, as messages pass.

    A job's answer has the id of its request. Another message is an answer where the handler of a
    message sent it to that one's sender; a message has one answer, the first. Two senders' messages
    may pass a follower in another order than they were sent in: so an answer waits for its request, too.

    Args:
        max_bytes: Of requests that wait for their answer, of jobs and of others each; the same for
            answers that wait for their request.
    """

    def __init__(self, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._jobs = _Waiting(max_bytes)
        self._others = _Waiting(max_bytes)
        self._early = _Waiting(max_bytes)

    @property
    def fallen(self) -> int:
        """Requests of jobs that were forgotten before their answer came: there were too many."""
        return self._jobs.fallen

    def take(self, message: TailMessage) -> MessagePair | None:
        """The pair that a message completes, if it does."""
        if message.type in _JOB_ENDS:
            return self._take_job(message)
        if message.category == "job" or message.target is None:
            return None
        parent = parent_span_id(message)
        pair = None if parent is None else self._await_request(self._others, parent, message)
        return pair or self._await_answer(self._others, span_id_of(message), message)

    def _take_job(self, message: TailMessage) -> MessagePair | None:
        job_id = _job_of(message).job_id
        if not job_id:
            return None
        take = self._await_answer if message.type in _REQUESTS else self._await_request
        return take(self._jobs, job_id, message)

    def _await_answer(
        self, requests: _Waiting, conversation: str, request: TailMessage
    ) -> MessagePair | None:
        key = (conversation, request.target, request.source)
        answer = self._early.pop(key)
        if answer is None:
            requests.add(key, request)
            return None
        for other in _keys_of(conversation, answer):
            self._early.pop(other)
        return _pair(request, answer)

    def _await_request(
        self, requests: _Waiting, conversation: str, answer: TailMessage
    ) -> MessagePair | None:
        keys = _keys_of(conversation, answer)
        for key in keys:
            request = requests.pop(key)
            if request is not None:
                return _pair(request, answer)
        for key in keys:
            if key not in self._early:
                self._early.add(key, answer)
        return None

    def drain(self) -> Iterator[MessagePair]:
        """The jobs without an answer, oldest first; they wait no longer."""
        for request in self._jobs.drain():
            yield MessagePair(request=request)


def _keys_of(conversation: str, answer: TailMessage) -> list[Hashable]:
    """Of the requests that it may be the answer to: a group was asked, one of its replicas answers."""
    return [(conversation, name, answer.target) for name in names_of(answer.source)]


def _pair(request: TailMessage, answer: TailMessage) -> MessagePair:
    status = _job_of(answer).status if answer.type in _ANSWERS else None
    return MessagePair(request=request, answer=answer, status=status)


class PairChoice:
    """The choice among pairs.

    Args:
        chosen: One of the two has to meet the conditions, neither may be excluded. Its expression is
            on the fields of the pair.
    """

    def __init__(self, chosen: Filter) -> None:
        self._chosen = chosen
        self._matched = 0

    def takes(self, pair: MessagePair) -> bool:
        """Whether a pair is one that is given."""
        chosen = self._chosen
        both = [one for one in (pair.request, pair.answer) if one is not None]
        if any(chosen.excludes(one, one.body, is_urgent=one.is_urgent) for one in both):
            return False
        if not any(chosen.meets(one, one.body, is_urgent=one.is_urgent) for one in both):
            return False
        expression = chosen.expression
        if expression is not None and not expression.holds(pair_fields(pair, is_decoded=True)):
            return False
        self._matched += 1
        return chosen.is_in_sample(self._matched)


class PairTail:
    """Follows pairs: ``async for pair in tail``, or within ``async with``.

    Args:
        tail: All messages; what is chosen is looked for in requests and answers.
        chosen: Which pairs; see PairChoice.
    """

    def __init__(self, tail: MessageTail, chosen: Filter) -> None:
        self._tail = tail
        self._chosen = chosen
        self._pairing = Pairing()
        self._choice = PairChoice(chosen)

    @property
    def missed(self) -> int:
        """Messages known to have passed unseen, and requests that were forgotten."""
        return self._tail.missed + self._pairing.fallen

    @property
    def passed(self) -> int:
        """Messages that have passed so far."""
        return self._tail.passed

    async def __aenter__(self) -> Self:
        await self._tail.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MessagePair:
        while True:
            pair = self._pairing.take(await anext(self._tail))
            if pair is not None and self._choice.takes(pair):
                return self._shown(pair)

    def rest(self) -> Iterator[MessagePair]:
        """The chosen jobs that have no answer yet; each is given once."""
        return (self._shown(pair) for pair in self._pairing.drain() if self._choice.takes(pair))

    def _shown(self, pair: MessagePair) -> MessagePair:
        return pair if self._chosen.has_bodies else pair.without_bodies

    async def close(self) -> None:
        """Follow no longer. Idempotent."""
        await self._tail.close()
