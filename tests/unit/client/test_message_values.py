"""Values of a message by paths: what is there, what is not, and names that look like paths."""

from typing import Any

import pytest

from pbus.client.traffic.tails.message_values import _NO_VALUE, _value

FIELDS: dict[str, Any] = {
    "source": "here",
    "items": "of the header",
    "data": {
        "text": "t",
        "none": None,
        "no": False,
        "items": [{"x": 1}, [2, 3], "four"],
        "a.b": {"c": 5},
        "0": "zero",
        "": "empty",
        "source": "inner",
    },
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("source", "here"),
        ("data.source", "inner"),
        ("text", "t"),
        ("data.text", "t"),
        ("none", None),
        ("no", False),
        ("data.items.0.x", 1),
        ("data.items.1.1", 3),
        ("data.items.01.0", 2),
        ("a.b", {"c": 5}),
        ("data.a.b", {"c": 5}),
        ("0", "zero"),
        ("data.", "empty"),
        ("items", "of the header"),
    ],
)
def test_value_at_a_path(path: str, value: object) -> None:
    """The header goes before the message's own fields; a name with dots is found as a whole."""
    assert value == _value(FIELDS, path)


@pytest.mark.parametrize(
    "path",
    [
        ".", "..", "data..", "data.items.3", "data.items.-1", "data.items.x", "data.items.",
        "data.items.2.0", "text.0", "none.x", "source.x", "data.items.²", "data.items.٣",
        "data.items.1_0", "data.items." + "9" * 5_000, "missing", "data.missing.text",
    ],
)  # fmt: skip
def test_no_value(path: str) -> None:
    """What leads nowhere gives no value, and no error."""
    assert _NO_VALUE is _value(FIELDS, path)


@pytest.mark.parametrize("data", [None, "text", 7, [], [1], {}])
def test_data_of_any_kind(data: object) -> None:
    """A message whose data is no object has no fields of its own."""
    assert _NO_VALUE is _value({"source": "x", "data": data}, "text")
    assert data == _value({"source": "x", "data": data}, "data")
