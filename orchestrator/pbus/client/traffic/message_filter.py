"""The filter of the messages that a tail shows."""

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypedDict

import msgspec

from pbus.bus.tap import TapMessage
from pbus.client.traffic.type_names import OWN_TYPES, category_of, type_names
from pbus.messages import Category
from pbus.names import names_of
from pbus.structs import DECODE_ERRORS

if TYPE_CHECKING:
    from pbus.client.traffic.tails.match_expression import MatchExpression

Names = str | Iterable[str]

_EVERYONE: Final = "*"
_ATTEMPT: Final = "~"  # between a job's id and the number of a later attempt


class TailTerms(TypedDict, total=False):
    """The conditions of Client.tail() as keywords."""

    source: Names
    target: Names
    type: Names
    category: Category | Iterable[Category]
    key: Names
    pattern: str | None
    exclude: Names
    job: Names
    trace: Names
    match: str | None
    sample: int
    headers_only: bool


class Head(Protocol):
    """The header of a message, seen or kept."""

    @property
    def type(self) -> str:
        """The name of its type."""

    @property
    def source(self) -> str:
        """Its sender."""

    @property
    def target(self) -> str | None:
        """Its receiver; None for everyone."""

    @property
    def key(self) -> str | None:
        """Chose the replica; None where it has none."""

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to."""


NamesOf: TypeAlias = Callable[[Head, bytes, bool], Iterable[str]]


@dataclass(frozen=True)
class Filter:
    """Every kind of condition given must hold; of several of one kind, one of them.

    Attributes:
        sources: Names or patterns; a replica matches its group's name, too.
        targets: Likewise; ``*`` for broadcasts.
        types: Names or patterns, whole (BusFrameMessage), short (Frame), or of a frame (TextFrame).
        keys: Keys or patterns.
        pattern: Looked for in the message as it travelled.
        excluded: What is left out: patterns of sources, targets or types, or of one of these alone
            (``type=Frame``, also ``key=``, ``category=``, ``job=``, ``trace=``).
        jobs: Ids of jobs or patterns: all messages of these jobs, those of later attempts too.
        traces: Ids of traces or patterns.
        expression: Holds for the message's fields.
        sample: Of so many messages that meet the conditions, one.
        has_bodies: Whether messages have their own fields.
    """

    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    categories: frozenset[Category] = frozenset()
    keys: tuple[str, ...] = ()
    pattern: re.Pattern[bytes] | None = None
    excluded: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    expression: "MatchExpression | None" = None
    sample: int = 1
    has_bodies: bool = True

    def passes(self, item: TapMessage) -> bool:
        """Whether a message meets the conditions, but for the expression."""
        return self.allows(item.header, item.body, is_urgent=item.lane == "s")

    def allows(self, head: Head, body: bytes, *, is_urgent: bool) -> bool:
        """Whether a message meets the conditions, but for the expression; arguments as of meets()."""
        return self.meets(head, body, is_urgent=is_urgent) and not self.excludes(
            head, body, is_urgent=is_urgent
        )

    def meets(self, head: Head, body: bytes, *, is_urgent: bool) -> bool:
        """Whether a message meets the conditions, but for the expression and what is left out.

        Args:
            head: Its header.
            body: The whole message as JSON.
            is_urgent: It travelled in the system lane.
        """
        if head.type in OWN_TYPES and not self.types:
            return False
        for patterns, names in self._conditions:
            if not _matches(patterns, names(head, body, is_urgent)):
                return False
        return self.pattern is None or self.pattern.search(body) is not None

    def excludes(self, head: Head, body: bytes, *, is_urgent: bool) -> bool:
        """Whether a message is to be left out; arguments as of meets()."""
        return any(_is_excluded(term, head, body, is_urgent) for term in self.excluded)

    def is_in_sample(self, number: int) -> bool:
        """Whether the message of that number, from 1, is one of the sample."""
        return (number - 1) % self.sample == 0

    @functools.cached_property
    def _conditions(self) -> tuple[tuple[Iterable[str], NamesOf], ...]:
        """The patterns that were given, each with the names of which one has to match."""
        given = {
            "source": self.sources,
            "target": self.targets,
            "type": self.types,
            "key": self.keys,
            "category": self.categories,
            "job": self.jobs,
            "trace": self.traces,
        }
        return tuple((patterns, _NAMES[kind]) for kind, patterns in given.items() if patterns)


def filter_of(terms: TailTerms) -> Filter:
    """The filter of conditions that were given as keywords; see Client.tail().

    Raises:
        re.error: The pattern is no regular expression.
        MatchExpressionError: The condition is no JMESPath expression.
    """
    pattern, match = terms.get("pattern"), terms.get("match")
    return Filter(
        sources=_texts(terms.get("source", ())),
        targets=_texts(terms.get("target", ())),
        types=_texts(terms.get("type", ())),
        categories=frozenset(_texts(terms.get("category", ()))),  # type: ignore[arg-type]
        keys=_texts(terms.get("key", ())),
        pattern=None if pattern is None else re.compile(pattern.encode()),
        excluded=_texts(terms.get("exclude", ())),
        jobs=_texts(terms.get("job", ())),
        traces=_texts(terms.get("trace", ())),
        expression=None if match is None else _expression(match),
        sample=terms.get("sample", 1),
        has_bodies=not terms.get("headers_only", False),
    )


def _expression(text: str) -> "MatchExpression":
    from pbus.client.traffic.tails.match_expression import MatchExpression

    return MatchExpression(text)


def _texts(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _matches(patterns: Iterable[str], names: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _is_excluded(term: str, head: Head, body: bytes, is_urgent: bool) -> bool:  # noqa: FBT001 - as _NAMES
    kind, equals, pattern = term.partition("=")
    if equals and kind in _NAMES:
        return _matches((pattern,), _NAMES[kind](head, body, is_urgent))
    names = {name for kind in _ANY for name in _NAMES[kind](head, body, is_urgent)}
    return _matches((term,), names - {_EVERYONE})


def _keys_of(head: Head) -> tuple[str, ...]:
    return () if head.key is None else (head.key,)


def _target_names(target: str | None) -> tuple[str, ...]:
    """A broadcast reaches everyone, but only `*` asks for it."""
    return (_EVERYONE,) if target is None else names_of(target)


class _JobHead(msgspec.Struct, frozen=True):
    job_id: str | None = None


_decode_job_head = msgspec.json.Decoder(_JobHead).decode


def job_id_of(body: bytes) -> str | None:
    """The id of the job that a message is about, without the number of the attempt; None for no job."""
    try:
        job_id = _decode_job_head(body).job_id
    except DECODE_ERRORS:
        return None
    return None if job_id is None else job_id.partition(_ATTEMPT)[0]


def _jobs_of(head: Head, body: bytes, *, is_urgent: bool) -> tuple[str, ...]:
    """The job of a message of the category "job": reports of what was read are none of it."""
    if category_of(head.type, is_urgent=is_urgent) != "job":
        return ()
    job_id = job_id_of(body)
    return () if job_id is None else (job_id,)


_NAMES: Final[Mapping[str, NamesOf]] = {
    "source": lambda head, _body, _is_urgent: names_of(head.source),
    "target": lambda head, _body, _is_urgent: _target_names(head.target),
    "type": lambda head, body, _is_urgent: type_names(head.type, body),
    "key": lambda head, _body, _is_urgent: _keys_of(head),
    "category": lambda head, _body, is_urgent: (category_of(head.type, is_urgent=is_urgent),),
    "trace": lambda head, _body, _is_urgent: (head.trace_id,),
    "job": lambda head, body, is_urgent: _jobs_of(head, body, is_urgent=is_urgent),
}
_ANY: Final = ("source", "target", "type")  # what an excluded name without a kind means
