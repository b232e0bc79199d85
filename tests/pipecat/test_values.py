"""Values as JSON and back: what arrives is what was sent, and nothing is imported for it."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.processors.aggregators.llm_context import LLMContext
from pydantic import BaseModel, Field

from pbus.compat.pipecat.values import decode, encode, encode_field, find_class
from pbus.errors import MessageEncodeError


class Color(enum.Enum):
    RED = "r"


class Level(enum.StrEnum):
    HIGH = "high"


class Rank(enum.IntEnum):
    ONE = 1


class Named(str):
    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int
    y: int | None = None
    made: str = dataclasses.field(default="here", init=False)

    class Inner(enum.Enum):
        A = 1


class Order(BaseModel):
    item: str
    count: int = Field(default=1)
    note: str | None = "default"
    at: dt.datetime | None = None


PLAIN = [
    None, True, 0, -1, 1 << 63, "", "héllo \0 \U0001f600", 2.5, [], {}, [1, [None]], {"a": {"b": [1]}},
]  # fmt: skip
TAGGED = [
    b"", bytes(range(256)), bytearray(b"x"), (1, (2, "a")), {1, 2}, frozenset({"a"}), 1 << 80, -(1 << 64),
    math.inf, -math.inf, dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC), dt.date(2026, 1, 2), dt.time(1, 2),
    dt.timedelta(days=-1, microseconds=7), uuid.UUID(int=5), decimal.Decimal("1.50"), Color.RED,
    Level.HIGH, Rank.ONE, Point.Inner.A, Point(1), Point(1, 2), {1: "int key", (1, 2): "tuple key"},
    {"__type__": "bytes", "__data__": "no bytes"}, {"__type__": 1}, {None: {"__type__": "a", "__data__": []}},
    Order(item="x"), Order(item="y", note=None, at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
]  # fmt: skip


def passed(value):
    """The value behind the wire."""
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)))


@pytest.mark.parametrize(
    "value", [*PLAIN, *TAGGED, TAGGED, {"inner": TAGGED}], ids=lambda value: repr(value)[:60]
)
def test_a_value_arrives_as_it_was(value):
    """Of the same type, wherever it stands."""
    for whole in (value, [value], {"key": value}, (value,)):
        arrived = passed(whole)
        assert whole == arrived
        assert type(whole) is type(arrived)
    assert type(value) is type(passed(value))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text()
        | st.binary(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.integers(), inner)
            | st.tuples(inner, inner)
        ),
        max_leaves=20,
    )
)
def test_any_value_arrives_as_it_was(value):
    """Also one that looks like a tag."""
    for whole in (value, {"__type__": value, "__data__": value}):
        assert whole == passed(whole)


def test_nan_arrives():
    """It equals nothing, but is there."""
    assert math.isnan(passed(math.nan))


def test_subclasses_of_plain_types_arrive_as_plain():
    """Their data is what they are."""
    assert ["a", {"k": 1}] == passed([Named("a"), collections.OrderedDict(k=1)])


def test_a_context_and_tools_arrive():
    """As by the adapters of Pipecat's own serializer."""
    tool = FunctionSchema("get", "gets", {"a": {"type": "string"}}, ["a"])
    tools = ToolsSchema(standard_tools=[tool])
    context = LLMContext(messages=[{"role": "user", "content": "hi"}], tools=tools)

    arrived = passed({"context": context, "tools": tools})

    assert context.get_messages() == arrived["context"].get_messages()
    (found,) = arrived["context"].tools.standard_tools
    assert tool.to_default_dict() == found.to_default_dict()
    assert ToolsSchema is type(arrived["tools"])


def local_class():
    """A class that no other process can find."""

    @dataclasses.dataclass
    class Local:
        x: int = 1

    return Local


DEEP = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "payload"),
        ({"a": [1, {"b": object()}]}, r"payload\.a\[1\]\.b"),
        ({"f": print}, r"payload\.f"),
        ([local_class()()], r"payload\[0\]"),
        ({1: object()}, r"payload\[0\]\[1\]"),
        (Point(x=object()), r"payload\.x"),
        (memoryview(b"x"), "payload"),
        (DEEP, "payload"),
    ],
)
def test_what_cannot_travel_is_named(value, place):
    """With the place where it stands."""
    with pytest.raises(MessageEncodeError, match=place):
        encode_field(value, "BusJobRequestMessage", "payload")


def test_functions_of_objects_are_left_out():
    """As by Pipecat: they are hooks of the sender's."""
    assert Point(1) == passed(Point(1, print))


@pytest.mark.parametrize(
    "name",
    ["this_never.Was", "unittest.__main__.X", "os.system", "json.dumps", "", "x", "dataclasses.dataclass",
     "pathlib.Path", "pbus.errors.PbusError", 5, None, "sys.modules", "builtins.object"],
)  # fmt: skip
def test_a_message_makes_nothing_imported_and_no_foreign_object(name):
    """A name that is not of an imported class that travels stays a name."""
    before = set(sys.modules)
    tagged = {"__type__": name, "__data__": {"x": 1}}

    assert find_class(name) is None
    assert tagged == decode(tagged)
    assert before == set(sys.modules)


@pytest.mark.parametrize(
    "tagged",
    [{"__type__": "UUID", "__data__": "no"}, {"__type__": "bytes", "__data__": 5},
     {"__type__": "dict", "__data__": [1]}, {"__type__": f"{__name__}.Color", "__data__": "BLUE"},
     {"__type__": f"{__name__}.Order", "__data__": {"count": "x"}}],
)  # fmt: skip
def test_wrong_data_is_an_error(tagged):
    """Not a wrong value."""
    with pytest.raises((ValueError, TypeError, KeyError)):
        decode(tagged)
