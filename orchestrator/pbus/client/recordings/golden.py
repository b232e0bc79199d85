"""Comparison of the answers of workers in a replay with a golden recording."""

import fnmatch
import json
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final, Literal, TypeAlias

import msgspec

from pbus.client.addresses import CLIENT_PREFIX
from pbus.client.recordings.replay_plan import REQUESTS, SaidMessage
from pbus.codec import Header
from pbus.names import names_of

_CLIENT: Final = "client"
_EVERYONE: Final = "*"
_VOLATILE: Final = frozenset({"deadline", "window", "position"})  # of job messages
_HEADER: Final = frozenset(Header.__struct_fields__) - {"key"}
_ABSENT: Final = "(absent)"

_UNASKED: Final = "a job from before"

Place: TypeAlias = tuple[str, str, str]  # source, target, type
Edge: TypeAlias = tuple[str, str, str, str]  # and job


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A field, or a message, that is not as expected.

    Attributes:
        number: Of the message among those of its source, target, type and job, from 1.
        job: "" for a message of no job.
        field: The path to it, such as `response.items.0.text`; "" for a whole message.
        expected: Its value; None for a message that is unexpected.
        actual: Its value; None for a message that is missing.
    """

    kind: Literal["changed", "missing", "unexpected"]
    source: str
    target: str
    type: str
    job: str
    number: int
    field: str = ""
    expected: Any = None
    actual: Any = None


class AnswersBefore:
    """Counts the answers that senders of a recording had when they sent a message.

    Args:
        messages: Of the recording, by their times.
        real: The workers that answer.
    """

    def __init__(self, messages: Iterable[SaidMessage], real: Collection[str]) -> None:
        self._left = deque(said for said in messages if said.header.source in real)
        self._counts: dict[str, Counter[Place]] = defaultdict(Counter)

    def of(self, said: SaidMessage) -> Counter[Place]:
        """Count what was sent to the sender of a message, and to all, before it.

        Args:
            said: Not older than that of the call before.
        """
        while self._left and self._left[0].header.time < said.header.time:
            place = _place_of(self._left.popleft())
            self._counts[place[1]][place] += 1
        sender = _place(said.header.source)
        counts = self._counts[_EVERYONE].copy()
        for name in {sender, *names_of(sender)}:
            counts += self._counts[name]
        return counts


def edge_counts(messages: Iterable[SaidMessage], real: Collection[str]) -> Counter[Place]:
    """The numbers of messages that workers sent, by source, target and type.

    Args:
        messages: Of any order.
        real: The workers.
    """
    return Counter(_place_of(said) for said in messages if said.header.source in real)


class Outcome:
    """The messages that workers sent, by source, target, type and job.

    Ids of jobs stand by the names and the order of the jobs, wherever they are in fields.

    Args:
        messages: All, in the order of their making.
        real: The workers.
    """

    def __init__(self, messages: Sequence[SaidMessage], real: Collection[str]) -> None:
        self._labels: dict[str, str] = {}
        self._asked: Counter[str] = Counter()
        self._messages: dict[Edge, list[SaidMessage]] = defaultdict(list)
        for said in messages:
            if said.header.type in REQUESTS and said.job_id is not None:
                self._name_job(said.job_id, said)
        for said in messages:
            if said.header.source in real:
                self._messages[self._edge_of(said)].append(said)

    @property
    def counts(self) -> dict[Edge, int]:
        """The number of messages of each edge."""
        return {edge: len(messages) for edge, messages in self._messages.items()}

    def fields(self, edge: Edge) -> list[dict[str, Any]]:
        """The fields of the messages of an edge, in order."""
        return [self._fields_of(said) for said in self._messages.get(edge, [])]

    def _edge_of(self, said: SaidMessage) -> Edge:
        job = "" if said.job_id is None else self._labels.get(said.job_id, _UNASKED)
        return (*_place_of(said), job)

    def _name_job(self, job_id: str, request: SaidMessage) -> None:
        name, payload = request.fields.get("job_name"), request.fields.get("payload")
        label = f"{_place(request.header.source)} {name}({json.dumps(payload, sort_keys=True)})"
        if job_id not in self._labels:
            self._asked[label] += 1
            self._labels[job_id] = f"{label} #{self._asked[label]}"

    def _fields_of(self, said: SaidMessage) -> dict[str, Any]:
        left_out = _HEADER if said.job_id is None else _HEADER | _VOLATILE | {"job_id"}
        own = {name: value for name, value in said.fields.items() if name not in left_out}
        return {name: self._stable(value) for name, value in own.items()}

    def _stable(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._labels.get(value, value)
        if isinstance(value, dict):
            return {name: self._stable(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._stable(inner) for inner in value]
        return value


def differences(
    expected: Outcome, actual: Outcome, ignored: Sequence[str] = ()
) -> list[Difference]:
    """Compare the messages of two outcomes, in order, field by field.

    Args:
        expected: Of the golden recording.
        actual: Of the replay.
        ignored: Patterns of paths to fields, and what is below them, that may differ.
    """
    found: list[Difference] = []
    for edge in dict.fromkeys((*expected.counts, *actual.counts)):
        pairs = zip_longest(expected.fields(edge), actual.fields(edge))
        for number, (first, second) in enumerate(pairs, 1):
            found += _of_message(edge, number, first, second, ignored)
    return found


def _of_message(
    edge: Edge,
    number: int,
    first: dict[str, Any] | None,
    second: dict[str, Any] | None,
    ignored: Sequence[str],
) -> Iterator[Difference]:
    source, target, type_name, job = edge
    kind: Literal["changed", "missing", "unexpected"] = "changed"
    if first is None or second is None:
        kind = "unexpected" if first is None else "missing"
    for path, expected, actual in _changes(first, second, ignored):
        yield Difference(
            kind=kind,
            source=source,
            target=target,
            type=type_name,
            job=job,
            number=number,
            field=path,
            expected=expected,
            actual=actual,
        )


def _changes(
    first: dict[str, Any] | None, second: dict[str, Any] | None, ignored: Sequence[str]
) -> Iterable[tuple[str, Any, Any]]:
    if first is None or second is None:
        return [("", first, second)]
    return [one for one in _walk("", first, second) if not _is_ignored(one[0], ignored)]


def _is_ignored(path: str, ignored: Sequence[str]) -> bool:
    parts = path.split(".")
    above = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return any(fnmatch.fnmatchcase(one, pattern) for one in above for pattern in ignored)


def _walk(path: str, first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the paths at which two values differ, with both values."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in dict.fromkeys((*first, *second)):
            below = f"{path}.{name}" if path else str(name)
            yield from _walk(below, first.get(name, _ABSENT), second.get(name, _ABSENT))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for at, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from _walk(f"{path}.{at}", one, other)
    elif not _is_same(first, second):
        yield path, first, second


def _is_same(first: Any, second: Any) -> bool:
    return bool(first == second) and type(first) is type(second)


def _place_of(said: SaidMessage) -> Place:
    target = _EVERYONE if said.header.target is None else _place(said.header.target)
    return _place(said.header.source), target, said.header.type


def _place(address: str) -> str:
    """A source or target: clients have an address of their own each time."""
    name = address.partition("@")[0] or address
    return _CLIENT if name.startswith(CLIENT_PREFIX) else name
