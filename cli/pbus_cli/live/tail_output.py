"""From what passes to the lines that `pbus tail` prints."""

import sys
from collections.abc import Callable
from shutil import get_terminal_size
from typing import Any, Final, TypeAlias

from pbus.client.traffic.message_tail import TailMessage, message_fields
from pbus.client.traffic.tails.cloud_events import cloud_event
from pbus.client.traffic.tails.message_pairs import MessagePair, pair_fields
from pbus.client.traffic.tails.message_values import MessageValues
from pbus.client.traffic.tails.past_timeline import KeptEntry
from pbus.client.traffic.tails.timeline import Entry
from pbus.process.project.log_files import LogLine
from pbus_cli.live.traffic_fold import passed_of
from pbus_cli.terminal import console
from pbus_cli.views.figures import clock_time
from pbus_cli.views.log_lines import log_text
from pbus_cli.views.messages.pair_text import pair_text
from pbus_cli.views.states import Change, StateLines, state_fields
from pbus_cli.views.traffic import Widths, traffic_text

Formatter: TypeAlias = Callable[[Any], str]

_KIND_WIDTH: Final = len("event ")
_SHORT_KINDS: Final = {"message": "msg", "log": "log", "event": "event"}
_NAME_WIDTH: Final = 12


def text_formatter(*, has_kinds: bool = False) -> Formatter:
    """A function that makes the line of an entry, for people.

    Args:
        has_kinds: Say before each line whether it is a message, a log line or an event.
    """
    lines = TailLines(indent=_KIND_WIDTH if has_kinds else 0)
    if not has_kinds:
        return lines.line
    return lambda entry: f"{_SHORT_KINDS[_kind_of(entry)]:<{_KIND_WIDTH}}{lines.line(entry)}"


def json_formatter(*, has_kinds: bool = False) -> Formatter:
    """A function that makes the documented JSON of an entry.

    Args:
        has_kinds: Say in each whether it is a message, a log line or an event.
    """
    if not has_kinds:
        return lambda entry: console.json_text(_fields_of(entry))
    return lambda entry: console.json_text({"kind": _kind_of(entry), **_fields_of(entry)})


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


def _kind_of(entry: Entry | KeptEntry) -> str:
    if isinstance(entry, TailMessage | MessagePair):
        return "message"
    return "log" if isinstance(entry, LogLine) else "event"


def _fields_of(entry: Entry | KeptEntry) -> dict[str, Any]:
    if isinstance(entry, TailMessage):
        return message_fields(entry)
    if isinstance(entry, MessagePair):
        return pair_fields(entry)
    if isinstance(entry, LogLine):
        return {
            "time": entry.time,
            "worker": entry.worker,
            "stream": entry.stream,
            "text": entry.text,
        }
    return dict(state_fields(entry))


class TailLines:
    """Lines with columns that stay aligned as wider names appear; cut to a terminal's width.

    Args:
        indent: Cells before each line.
    """

    def __init__(self, indent: int = 0) -> None:
        is_terminal = console.is_terminal()
        self._has_colors = is_terminal and console.has_colors(sys.stdout)
        self._width = get_terminal_size().columns - indent if is_terminal else None
        self._widths = Widths()
        self._names = _NAME_WIDTH
        self._states = StateLines(has_colors=self._has_colors, width=self._width)

    def line(self, entry: Entry | KeptEntry) -> str:
        """The line of one entry."""
        if isinstance(entry, TailMessage):
            return self._message_line(entry)
        if isinstance(entry, MessagePair):
            return self._pair_line(entry)
        return self._log_line(entry) if isinstance(entry, LogLine) else self._state_line(entry)

    def _message_line(self, message: TailMessage) -> str:
        passed = passed_of(message)
        self._widths = self._widths.grown(passed)
        fitted = self._widths.fitted(self._width)
        return traffic_text(passed, fitted, width=self._width, has_colors=self._has_colors)

    def _pair_line(self, pair: MessagePair) -> str:
        request = passed_of(pair.request)
        answer = None if pair.answer is None else passed_of(pair.answer)
        self._widths = self._widths.grown(request)
        return pair_text(
            request, answer, pair.status, self._widths.fitted(self._width),
            width=self._width, has_colors=self._has_colors,
        )  # fmt: skip

    def _log_line(self, line: LogLine) -> str:
        self._names = max(self._names, len(line.worker))
        text = log_text(line, self._names, has_colors=self._has_colors)
        return f"{clock_time(line.time)}  {text}"

    def _state_line(self, change: Change) -> str:
        self._states = self._states.grown(change)
        return self._states.line(change)
