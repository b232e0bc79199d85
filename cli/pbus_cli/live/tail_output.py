"""From messages that pass to the lines that `pbus tail` prints."""

import sys
from collections.abc import Callable, Sequence
from shutil import get_terminal_size
from typing import Any, TypeAlias

from pbus.client.traffic.cloud_events import cloud_event
from pbus.client.traffic.message_tail import TailMessage, message_fields
from pbus.client.traffic.message_values import MessageValues
from pbus_cli.live.channel_watch import passed_of
from pbus_cli.terminal import console
from pbus_cli.views.traffic import Widths, traffic_text

Formatter: TypeAlias = Callable[[TailMessage], str]


def text_formatter() -> Formatter:
    """A function that makes the line of a message, for people."""
    return TrafficLines().line


def json_formatter() -> Formatter:
    """A function that makes the documented JSON of a message."""
    return lambda message: console.json_text(message_fields(message))


def event_formatter(project: str) -> Formatter:
    """A function that makes the event of a message; see cloud_event()."""
    return lambda message: console.json_text(cloud_event(message, project))


def value_formatter(values: MessageValues, *, is_json: bool) -> Formatter:
    """A function that makes a line of some values of a message: JSON, or with tabs between them."""
    if is_json:
        return lambda message: console.json_text(values.of(message))
    return lambda message: "\t".join(map(_value_text, values.of(message).values()))


def _value_text(value: Any) -> str:
    """A value within a line: text as it is, but for what would end the line or the value."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else console.json_text(value)
    return " ".join(text.splitlines()).replace("\t", " ")


class TrafficLines:
    """Lines with columns that stay aligned as wider names appear; cut to a terminal's width."""

    def __init__(self) -> None:
        is_terminal = console.is_terminal()
        self._has_colors = is_terminal and console.has_colors(sys.stdout)
        self._width = get_terminal_size().columns if is_terminal else None
        self._widths = Widths()

    def line(self, message: TailMessage) -> str:
        """The line of one message."""
        passed = passed_of(message)
        self._widths = self._widths.grown(passed)
        fitted = self._widths.fitted(self._width)
        return traffic_text(passed, fitted, width=self._width, has_colors=self._has_colors)


def paths_of(texts: Sequence[str]) -> list[str]:
    """The paths of --fields, given with commas between them or several times."""
    return [path.strip() for text in texts for path in text.split(",") if path.strip()]
