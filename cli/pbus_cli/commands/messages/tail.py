"""`pbus tail`: the messages of a project as they pass."""

import enum
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pbus_cli.input.completing import type_names, worker_names
from pbus_cli.input.options import AsJson, Count, Duration, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from pbus.client import Client, TailMessage
    from pbus.client.traffic.message_tail import Filter
    from pbus_cli.input.completing import Completer


class Kind(enum.StrEnum):
    """The categories of messages that travel."""

    DATA = "data"
    SYSTEM = "system"
    JOB = "job"


def _only(option: str, metavar: str, what: str, names: "Completer | None" = None) -> Any:
    """The option of a filter by names."""
    return typer.Option(
        option, metavar=metavar, help=f"Only {what} (* and ? match).", autocompletion=names
    )


def tail(
    source: Annotated[
        list[str] | None, _only("--source", "NAME", "from this worker", worker_names)
    ] = None,
    target: Annotated[
        list[str] | None, _only("--target", "NAME", "to this worker", worker_names)
    ] = None,
    type_name: Annotated[
        list[str] | None, _only("--type", "TYPE", "of this type", type_names)
    ] = None,
    category: Annotated[
        list[Kind] | None, typer.Option("--category", help="Only of this category.")
    ] = None,
    key: Annotated[list[str] | None, _only("--key", "KEY", "with this key")] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", metavar="RE", help="Only where this matches the JSON.")
    ] = None,
    count: Count = None,
    duration: Duration = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Follow the messages, without their workers' help. Each filter can be given several times."""
    from pbus.client.traffic.message_tail import Filter
    from pbus.errors import NothingRunningError
    from pbus_cli.call.attach import call, choose

    chosen = Filter(
        sources=tuple(source or ()),
        targets=tuple(target or ()),
        types=tuple(type_name or ()),
        categories=frozenset(kind.value for kind in category or ()),
        keys=tuple(key or ()),
        pattern=None if grep is None else _pattern(grep),
    )
    attachment = choose(project, file)
    text = _formatter(as_json=as_json)
    try:
        call(attachment, lambda client: _follow(client, chosen, count, duration, text))
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


def _pattern(text: str) -> "re.Pattern[bytes]":
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint="--grep") from None


async def _follow(
    client: "Client",
    chosen: "Filter",
    count: int | None,
    duration_s: float | None,
    text: "Callable[[TailMessage], str]",
) -> None:
    from pbus_cli.live.following import Following

    messages = client.follow(chosen)

    def say_missed(dropped: int) -> None:
        _say_missed(messages.missed + dropped)

    following = Following(text, count, duration_s, may_drop=True, on_end=say_missed)
    await following.run(client, messages)


def _say_missed(missed: int) -> None:
    if missed:
        noun = "message" if missed == 1 else "messages"
        console.warn(
            f"{missed:,} {noun} passed unseen: they came faster than they were printed, or while the broker was away"
        )


def _formatter(*, as_json: bool) -> "Callable[[TailMessage], str]":
    if as_json:
        return _json_line
    if not console.is_terminal():
        return _Lines(has_colors=False, width=None).line
    from shutil import get_terminal_size

    return _Lines(has_colors=console.has_colors(sys.stdout), width=get_terminal_size().columns).line


class _Lines:
    """Lines with columns that stay aligned as wider names appear."""

    def __init__(self, *, has_colors: bool, width: int | None) -> None:
        from pbus_cli.views.traffic import Widths

        self._widths = Widths()
        self._has_colors = has_colors
        self._width = width

    def line(self, message: "TailMessage") -> str:
        """The line of one message."""
        from pbus_cli.live.channel_watch import passed_of
        from pbus_cli.views.traffic import traffic_text

        passed = passed_of(message)
        self._widths = self._widths.grown(passed)
        fitted = self._widths.fitted(self._width)
        return traffic_text(passed, fitted, width=self._width, has_colors=self._has_colors)


def _json_line(message: "TailMessage") -> str:
    from pbus.client.traffic.message_tail import data_fields

    shown: dict[str, Any] = {
        "time": message.time,
        "id": message.id,
        "type": message.type,
        "category": message.category,
        "source": message.source,
        "target": message.target,
        "trace_id": message.trace_id,
        "size_bytes": message.size_bytes,
        "data": data_fields(message.body),
    }
    if message.key is not None:
        shown["key"] = message.key
    if not message.is_reached:
        shown["undelivered"] = True
    if message.is_local:
        shown["local"] = True
    return console.json_text(shown)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(tail)
