"""The quick look at a field's value agrees with the check that names the path to what is wrong."""

import enum
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbus.codec import check_plain
from pbus.codec.field_checks import _check_slowly, _is_plain
from pbus.errors import MessageEncodeError


class Text(str):
    """A text of another class."""

    __slots__ = ()


class Number(enum.IntEnum):
    """A number of another class."""

    ONE = 1


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=2),
    st.just(Text("x")), st.just(Number.ONE), st.just({1}), st.complex_numbers(),
)  # fmt: skip
KEYS = st.one_of(st.text(max_size=3), st.integers(), st.just(Text("k")), st.none())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=20),
    ),
    max_leaves=40,
)


def is_refused(value: Any) -> bool:
    """Whether the check part by part finds something."""
    try:
        _check_slowly(value, "Told", "data", 0, (str, int))
    except MessageEncodeError:
        return True
    return False


@settings(max_examples=400, deadline=None)
@given(VALUES)
def test_quick_look_lets_nothing_through(value: Any) -> None:
    """All that it calls plain is plain; and the public check refuses what the slow one refuses."""
    refused = is_refused(value)
    assert not (_is_plain(value, 0) and refused)
    if refused:
        with pytest.raises(MessageEncodeError):
            check_plain(value, "Told", "data")
    else:
        check_plain(value, "Told", "data")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([*range(20), math.nan], "data[20]"),
        ({"a": [1, {"b": (0.5, -math.inf)}]}, "data.a[1].b[1]"),
        ({"a": {2: "x"}}, "data.a"),
        ([*"abcdefghijklmnopqrst", b"u"], "data[20]"),
        ({**dict.fromkeys("abcdefghijklmnopqrst", 1), "u": {3}}, "data.u"),
    ],
)
def test_path_is_told(value: Any, path: str) -> None:
    """The error names the place, in long and in short containers."""
    with pytest.raises(MessageEncodeError, match="Told") as caught:
        check_plain(value, "Told", "data")
    assert f"{path}:" in str(caught.value) or f"{path} " in str(caught.value)


def test_depth_is_bounded() -> None:
    """200 levels are carried, one more is refused, also where all else is plain."""
    value: Any = "leaf"
    for _ in range(200):
        value = [value]
    check_plain(value, "Told", "data")
    with pytest.raises(MessageEncodeError, match="nested deeper"):
        check_plain([value], "Told", "data")


def test_plain_values_take_the_quick_way() -> None:
    """What most messages carry is decided without a path."""
    assert _is_plain({"text": "hi", "final": True, "scores": [0.5, 1], "none": None}, 0)
    assert _is_plain(list(range(1_000)), 0)
    assert not _is_plain({"bytes": b"x"}, 0)
