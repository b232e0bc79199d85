"""From the options of `pbus tail` to what it shows."""

import re
from typing import Any

import typer

from pbus.client.traffic.message_filter import Filter, filter_of
from pbus.client.traffic.tails.message_values import MessageValues
from pbus.errors import MatchExpressionError


def chosen_filter(options: dict[str, Any]) -> Filter:
    """The filter of the options that were given; names are those of Client.tail().

    Raises:
        typer.BadParameter: A pattern or an expression is none.
    """
    given: Any = {name: value for name, value in options.items() if value is not None}
    try:
        return filter_of(given)
    except re.error as error:
        pattern = options["pattern"]
        raise typer.BadParameter(f"{pattern!r}: {error}", param_hint="--grep") from None
    except MatchExpressionError as error:
        text = f"{error.message}; {error.hint}"
        raise typer.BadParameter(text, param_hint="--match") from None


def field_values(fields: list[str] | None) -> MessageValues | None:
    """The values of --fields, given with commas between them or several times.

    Raises:
        typer.BadParameter: It names none.
    """
    if fields is None:
        return None
    paths = [path.strip() for text in fields for path in text.split(",") if path.strip()]
    if not paths:
        raise typer.BadParameter("name at least one, as in source,text", param_hint="--fields")
    return MessageValues(paths)


def other_kinds(text: str | None) -> frozenset[str]:
    """The kinds of --with.

    Raises:
        typer.BadParameter: It has another.
    """
    others = frozenset(name.strip() for name in (text or "").split(",") if name.strip())
    if text is not None and (not others or others - {"logs", "events"}):
        message = f"{text!r} is none of: logs; events; logs,events"
        raise typer.BadParameter(message, param_hint="--with")
    return others
