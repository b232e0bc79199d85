"""Results of tools: clean, bounded, JSON, whatever programs wrote."""

import json

import pytest

from pbus_cli.tools.tool_result import MAX_BYTES, MAX_TEXT, result_text, sanitised


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\x07b\x00", "a\\x07b\\x00"),
        ("two\nlines\tof it", "two\nlines\tof it"),
        ("pay\u202egnp.exe", "pay\\u202egnp.exe"),
        ("x\U000e0041\U000e0042", "x\\U000e0041\\U000e0042"),  # tags, which only models read
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("half \udc1b[0m \ud83d", "half \\udc1b[0m \\ud83d"),
        ("Grüße 👩‍👩‍👧", "Grüße 👩‍👩‍👧"),
    ],
)
def test_texts_are_cleaned(text: str, shown: str):
    """In values and in keys; nothing that a terminal acts on or that is not seen is left."""
    assert shown == sanitised(text)
    assert {shown: [shown]} == sanitised({text: [text]})
    assert {"a": shown} == json.loads(result_text({"a": text}))


def test_long_texts_and_lists_are_cut():
    """With the number of what is left out."""
    assert "x" * MAX_TEXT + "… (5 more characters)" == sanitised("x" * (MAX_TEXT + 5))
    assert [0, 999, "(1 more)"] == [sanitised(list(range(1001)))[n] for n in (0, 999, -1)]
    assert "(2 more)" == sanitised({str(n): n for n in range(1002)})["..."]


def test_depth_is_bounded():
    """However deep a message nests."""
    deep: list = []
    for _ in range(900):
        deep = [deep]
    text = result_text({"data": deep})

    assert text.count("[") < 40
    assert "(1 more)" in text


def test_other_values_become_json():
    """Bytes, structs, numbers and what JSON has."""
    value = {"a": (1, 2.5, None, True), "b": b"\x00\xff", 3: "x"}
    assert {"a": [1, 2.5, None, True], "b": "AP8=", "3": "x"} == json.loads(result_text(value))


def test_a_long_list_keeps_its_end():
    """The newest lines stand last; the number of those left out is said."""
    lines = [{"n": number, "text": "y" * 500} for number in range(900)]
    text = result_text({"project": "p", "lines": lines}, "lines")
    found = json.loads(text)

    assert MAX_BYTES - 1_000 < len(text.encode()) <= MAX_BYTES
    assert 899 == found["lines"][-1]["n"]
    assert 900 == found["left_out"] + len(found["lines"])
    assert found["left_out"] == found["lines"][0]["n"]


@pytest.mark.parametrize("sign", ["z", "ü", '"'])
def test_what_has_no_list_is_cut(sign: str):
    """It is still JSON, within the bound, and says so."""
    value = {str(number): sign * MAX_TEXT for number in range(100)}
    text = result_text({"response": value, "events": [1, 2]}, "events")
    found = json.loads(text)

    assert found["too_long"] is True
    assert found["bytes"] > MAX_BYTES >= len(text.encode())
    assert found["begin"].startswith('{"response":{"0":"')
