"""Conditions in JMESPath: what holds, and where a mistake is."""

import subprocess
import sys
from typing import Any

import pytest

from pbus.client.traffic.tails.match_expression import MatchExpression
from pbus.errors import MatchExpressionError

FIELDS: dict[str, Any] = {"source": "a", "data": {"n": 0, "text": "", "items": [], "yes": True}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("source", True),
        ("data.n", True),  # as JMESPath has it: a number is no falsehood
        ("data.text", False),
        ("data.items", False),
        ("data.none", False),
        ("data.yes", True),
        ("!data.yes", False),
        ("data.{a: n}", True),
        ("data.none.deeper[0].x", False),
        ("data.n < `1` && source == 'a'", True),
        ("data.yes == true_", False),
        ("source == `a`", True),  # an old form of a text
    ],
)
def test_truth_is_that_of_jmespath(text: str, expected: bool) -> None:
    """Null, false and what is empty do not hold."""
    assert expected is MatchExpression(text).holds(FIELDS)


@pytest.mark.parametrize(
    ("text", "character", "problem"),
    [
        ("", 1, "empty"),
        ("data.", 6, "too early"),
        ("data.text == ", 14, "too early"),
        ("data.text = 'x'", 11, "unknown token"),
        ("data text", 6, "unexpected 'text'"),
        ("data['x", 6, "unclosed"),
        ("data.ü", 6, "unknown token"),
        ("a || length(", 13, "too early"),
        ("a && lenght(data) > `1`", 6, "no function lenght"),
        ("abs(n) && contains(data.text)", 11, "contains() takes 2"),
        ("not_null()", 1, "at least 1"),
        ("data.eval('1')", 6, "no function eval"),
        ("__import__('os')", 1, "no function __import__"),
        ("(" * 5000, 1, "too large"),
        ("a[" + "9" * 5000 + "]", 1, "too large"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, character: int, problem: str) -> None:
    """Before anything is followed; also functions that there are not."""
    with pytest.raises(MatchExpressionError) as caught:
        MatchExpression(text)

    assert (text, character - 1) == (caught.value.expression, caught.value.position)
    assert problem in caught.value.message
    assert caught.value.message.endswith(f"at character {character}")
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    "text", ["length(data.n)", "sort_by([data, source], &n)", "data.items[::0]"]
)
def test_what_cannot_be_evaluated_does_not_hold(text: str) -> None:
    """It is counted, with the reason: other messages may be of the right types."""
    expression = MatchExpression(text)

    assert [False, False] == [expression.holds(FIELDS), expression.holds(FIELDS)]
    assert 2 == expression.failures
    assert expression.failure


def test_the_package_is_loaded_for_a_condition_only():
    """A tail without one, and a worker, do without it."""
    program = """
import sys
from pbus.client.traffic.message_filter import filter_of
from pbus.client.traffic.message_tail import MessageTail
from pbus.client.traffic.tails.timeline import Timeline
from pbus_cli.commands.messages import tail
from pbus_cli.input import tail_conditions
from pbus_cli.live import tail_output
filter_of({"type": "Note", "exclude": "a"})
print("jmespath" in sys.modules)
filter_of({"match": "a"})
print("jmespath" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )

    assert ("False\nTrue\n", "") == (done.stdout, done.stderr)
