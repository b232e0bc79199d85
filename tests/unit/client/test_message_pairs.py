"""Requests and their answers: jobs by their id, others by the trace."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from pbus.client.traffic.message_filter import TailTerms, filter_of
from pbus.client.traffic.message_tail import TailMessage
from pbus.client.traffic.tails.message_pairs import MessagePair, Pairing, PairTail, pair_fields
from pbus.client.traffic.type_names import category_of
from pbus.trace_context import traceparent_after

Story = list[TailMessage]


def message(
    kind: str, source: str, target: str | None, at: float = 0.0, after: Any = None, **fields: Any
) -> TailMessage:
    """A message that passed; `after` is the one whose handler sent it."""
    body = json.dumps({"type": kind, "source": source, "target": target, **fields}).encode()
    return TailMessage(
        time=100 + at,
        id=f"{source}-{at}",
        type=kind,
        category=category_of(kind, is_urgent=False),
        source=source,
        target=target,
        size_bytes=len(body),
        is_urgent=False,
        body=body,
        traceparent=None if after is None else traceparent_after(after),
    )


def request(job: str, target: str = "b", at: float = 0.0, **fields: Any) -> TailMessage:
    """A job's request."""
    return message("BusJobRequestMessage", "a", target, at, job_id=job, **fields)


def answer(job: str, source: str = "b", at: float = 1.0, **fields: Any) -> TailMessage:
    """A job's answer."""
    fields = {"status": "completed", **fields}
    return message("BusJobResponseMessage", source, "a", at, job_id=job, **fields)


def pairs_of(story: Iterable[TailMessage], **options: Any) -> list[MessagePair]:
    """The pairs of messages that pass in this order."""
    pairing = Pairing(**options)
    return [pair for one in story if (pair := pairing.take(one)) is not None]


def shown(pairs: Iterable[MessagePair]) -> list[tuple[Any, ...]]:
    """Ends, time and status of pairs."""
    return [
        (
            pair.request.target,
            None if pair.answer is None else pair.answer.source,
            None if pair.seconds is None else round(pair.seconds, 3),
            pair.status,
        )
        for pair in pairs
    ]


def test_jobs_are_paired_by_id_and_worker() -> None:
    """Members of a group share the id, a replica answers for its group, later attempts are others."""
    story = [
        request("1", "b"), request("1", "c"), request("2", "post"), request("3"),
        request("3~2", "c", 0.5),
        message("BusJobUpdateMessage", "b", "a", 0.1, job_id="1", update={}),
        answer("1", "c", 0.2, status="error"),
        answer("1", "b", 0.3),
        answer("1", "b", 0.4),
        answer("2", "post.2", 0.5, status="cancelled"),
        message("BusJobStreamEndMessage", "c", "a", 2.0, job_id="3~2", data=None),
        answer("9"),
    ]  # fmt: skip

    assert [
        ("c", "c", 0.2, "error"),
        ("b", "b", 0.3, "completed"),
        ("post", "post.2", 0.5, "cancelled"),
        ("c", "c", 1.5, "completed"),
    ] == shown(pairs_of(story))


def test_open_jobs_are_left() -> None:
    """Told at the end, once; messages without an answer are no requests."""
    pairing = Pairing()
    for one in (request("1"), request("2", "c"), message("Ping", "a", "b"), answer("1")):
        pairing.take(one)

    assert [("c", None, None, None)] == shown(pairing.drain())
    assert [] == list(pairing.drain())


def test_pings_are_paired_by_their_handler() -> None:
    """What the handler of a message sends to its sender is its answer: the first, and no other."""
    ping, other = message("Ping", "a", "b", 0.0), message("Ping", "a", "b", 0.1)
    pong = message("Pong", "b", "a", 0.3, after=ping)
    story = [
        ping, other,
        message("Note", "b", "c", 0.2, after=ping),  # not to its sender
        message("Pong", "c", "a", 0.2, after=ping),  # not by its receiver
        message("Pong", "b", "a", 0.2),  # because of nothing
        message("BusJobRequestMessage", "b", "a", 0.2, after=ping, job_id="7"),
        message("Pong", "b", None, 0.2, after=ping),
        pong,
        message("Pong", "b", "a", 0.4, after=ping),
        message("Pong", "b", "a", 0.6, after=other),
        message("Thanks", "a", "b", 0.7, after=pong),  # of an answer
    ]  # fmt: skip

    assert [("b", "b", 0.3, None), ("b", "b", 0.5, None)] == shown(pairs_of(story))


def test_answers_pass_before_their_requests() -> None:
    """Two senders' messages pass in any order: the pair is made by the later one, once."""
    ping = message("Ping", "a", "b", 0.0)
    story = [
        answer("1", "post.2", 0.3), answer("1", "c", 0.2, status="error"), answer("1", "c", 0.4),
        request("1", "c"), request("1", "post"),
        message("Pong", "b.1", "a", 0.5, after=ping), message("Pong", "b.1", "a", 0.6, after=ping),
        message("Pong", "c", "a", 0.6, after=ping),
        ping,
    ]  # fmt: skip

    assert [
        ("c", "c", 0.2, "error"), ("post", "post.2", 0.3, "completed"), ("b", "b.1", 0.5, None),
    ] == shown(pairs_of(story))  # fmt: skip


def test_waiting_answers_are_bounded() -> None:
    """The oldest fall; none of them is a request that was forgotten."""
    pairing = Pairing(max_bytes=10_000)
    for number in range(50):
        assert pairing.take(answer(str(number), response={"text": "x" * 3000})) is None

    assert 0 == pairing.fallen
    found = [number for number in range(50) if pairing.take(request(str(number))) is not None]
    assert [48, 49] == found


def test_a_group_was_asked() -> None:
    """One of its replicas answers."""
    ping = message("Ping", "a", "b")
    assert [("b", "b.3", 1.0, None)] == shown(
        pairs_of([ping, message("Pong", "b.3", "a", 1.0, after=ping)])
    )


def test_clocks_that_differ_give_no_negative_time() -> None:
    """An answer that was made before its request was made by another clock."""
    assert [("b", "b", 0.0, "completed")] == shown(pairs_of([request("1"), answer("1", at=-3.0)]))


def test_waiting_requests_are_bounded() -> None:
    """The oldest fall, and are counted; what was answered takes no room."""
    pairing = Pairing(max_bytes=10_000)
    for number in range(50):
        pairing.take(request(f"x{number}", payload={"text": "x" * 3000}))
        assert pairing.take(answer(f"x{number}")) is not None
    assert 0 == pairing.fallen
    for number in range(50):
        pairing.take(request(str(number), payload={"text": "x" * 3000}))

    assert 48 == pairing.fallen
    assert ["48", "49"] == [json.loads(one.request.body)["job_id"] for one in pairing.drain()]


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"job_id":7}'])
def test_foreign_bodies_are_paired_with_nothing(body: bytes) -> None:
    """They are no error either."""
    odd = TailMessage(**{
        **{name: getattr(answer("1"), name) for name in TailMessage.__struct_fields__},
        "body": body,
    })

    assert [] == pairs_of([request("1"), odd])
    assert [] == pairs_of([odd, request("")])


class Played:
    """A tail that plays messages."""

    missed = 3

    def __init__(self, story: Story) -> None:
        self._left = list(story)
        self.passed = len(story)

    async def __aenter__(self) -> None:
        pass

    async def __anext__(self) -> TailMessage:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)

    async def close(self) -> None:
        """Play no more."""
        self._left.clear()


STORY = [
    request("1", "b", 0.0, job_name="load"), request("2", "c", 0.0), request("3", "d", 0.0),
    answer("1", "b", 0.1), answer("2", "c", 5.0, status="failed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("terms", "expected", "rest"),
    [
        ({}, ["b", "c"], ["d"]),
        ({"source": "c"}, ["c"], []),
        ({"target": "b"}, ["b"], []),
        ({"type": "JobResponse"}, ["b", "c"], []),
        ({"exclude": "source=c"}, ["b"], ["d"]),
        ({"match": "seconds > `1`"}, ["c"], []),
        ({"match": "status == 'failed' || !answer"}, ["c"], ["d"]),
        ({"match": "request.data.job_name == 'load'"}, ["b"], []),
        ({"sample": 2}, ["b"], ["d"]),
        ({"pattern": "load"}, ["b"], []),
    ],
)
def test_pairs_are_chosen(terms: dict[str, Any], expected: list[str], rest: list[str]) -> None:
    """By either of the two; what is excluded by either is left out; the condition is on the pair."""

    async def main() -> tuple[list[str | None], list[str | None]]:
        tail = PairTail(Played(STORY), filter_of(TailTerms(**terms)))  # type: ignore[arg-type, typeddict-item]
        pairs = [pair.request.target async for pair in tail]
        return pairs, [pair.request.target for pair in tail.rest()]

    assert (expected, rest) == asyncio.run(main())


def test_what_was_missed_and_headers_only() -> None:
    """Counted by the tail of messages; without bodies the status is known all the same."""

    async def main() -> None:
        tail = PairTail(Played(STORY), filter_of({"headers_only": True}))  # type: ignore[arg-type]
        pair = await anext(tail)
        assert (3, 5) == (tail.missed, tail.passed)
        fields = pair_fields(pair)
        assert ["request", "answer", "seconds", "status"] == list(fields)
        assert ("completed", False, False) == (
            fields["status"], "data" in fields["request"], "data" in fields["answer"],
        )  # fmt: skip
        (left,) = [one for one in tail.rest() if one.request.target == "d"]
        assert (None, b"") == (left.answer, left.request.body)

    asyncio.run(main())
