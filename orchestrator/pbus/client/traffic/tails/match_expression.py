"""Conditions on messages in JMESPath: checked before anything is followed, and never run as code."""

import itertools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

from jmespath import exceptions, functions, lexer, parser

from pbus.errors import MatchExpressionError

_SHOWN: Final = 200  # characters of a reason: values stand in it
# What evaluating raises where a value is not of the type that a function or a slice takes.
_MISMATCHES: Final = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)


class MatchExpression:
    """A condition on the fields of a message, in JMESPath.

    It holds where the result is neither null, false, nor an empty text, list or object.

    Args:
        text: The expression.

    Attributes:
        text: See there.
        failures: The number of messages on which it could not be evaluated; they do not match.
        failure: The reason, of the last of them.

    Raises:
        MatchExpressionError: It is none; with the position.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.failures = 0
        self.failure = ""
        self._parsed = _parse(text)

    def holds(self, fields: Mapping[str, Any]) -> bool:
        """Whether it holds for a message's fields."""
        try:
            value = self._parsed.search(fields)
        except _MISMATCHES as error:
            self.failures += 1
            self.failure = str(error)[:_SHOWN]
            return False
        return not (value is None or value is False or value in ("", [], {}))


def _parse(text: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of literals that are no JSON: they are text
            parsed = parser.Parser().parse(text)
            _check_functions(text, parsed.parsed)
    except exceptions.IncompleteExpressionError:
        raise MatchExpressionError(text, len(text), "it ends too early") from None
    except exceptions.LexerError as error:
        problem = error.message[:1].lower() + error.message[1:]
        raise MatchExpressionError(text, error.lex_position, problem) from None
    except exceptions.ParseError as error:
        is_end = error.lex_position >= len(text)
        problem = "it ends too early" if is_end else f"unexpected {error.token_value!r}"
        raise MatchExpressionError(text, error.lex_position, problem) from None
    except exceptions.EmptyExpressionError:
        raise MatchExpressionError(text, 0, "it is empty") from None
    except (ValueError, RecursionError) as error:
        raise MatchExpressionError(text, 0, f"it is too large ({error})"[:_SHOWN]) from None
    return parsed


def _check_functions(text: str, tree: dict[str, Any]) -> None:
    """Find functions that there are none of, and wrong numbers of arguments.

    Raises:
        MatchExpressionError: There is one.
    """
    tokens = list(lexer.Lexer().tokenize(text))
    places = (
        name["start"]
        for name, after in itertools.pairwise(tokens)
        if (name["type"], after["type"]) == ("unquoted_identifier", "lparen")
    )
    for call, place in zip(_calls(tree), places, strict=False):
        name, count = call["value"], len(call["children"])
        known = functions.Functions.FUNCTION_TABLE.get(name)
        if known is None:
            raise MatchExpressionError(text, place, f"there is no function {name}()")
        wanted = len(known["signature"])
        is_open = bool(known["signature"]) and known["signature"][-1].get("variadic", False)
        if count < wanted or (count > wanted and not is_open):
            least = "at least " if is_open else ""
            problem = f"{name}() takes {least}{wanted} arguments, not {count}"
            raise MatchExpressionError(text, place, problem)


def _calls(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The calls of functions, in the order of the text."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if node["type"] == "function_expression":
            yield node
        children = [child for child in node.get("children", ()) if isinstance(child, dict)]
        waiting += reversed(children)
