"""`pbus tail`: the messages of a project as they pass."""

import contextlib
import enum
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pbus_cli.input.completing import type_names, worker_names
from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles, parse_duration
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from pbus.client import Client, TailMessage
    from pbus.client.traffic.message_tail import MessageTail
    from pbus_cli.live.printer import LinePrinter


class Kind(enum.StrEnum):
    """The categories of messages that travel."""

    DATA = "data"
    SYSTEM = "system"
    JOB = "job"


def tail(
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="Only from this worker (* and ? match).",
            autocompletion=worker_names,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help="Only to this worker (* and ? match).",
            autocompletion=worker_names,
        ),
    ] = None,
    type_name: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only of this type (* and ? match).",
            autocompletion=type_names,
        ),
    ] = None,
    category: Annotated[
        list[Kind] | None, typer.Option("--category", help="Only of this category.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="Only with this key (* and ? match)."),
    ] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", metavar="RE", help="Only where this matches the JSON.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", "--count", metavar="N", min=1, help="End after so many.")
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option("--for", metavar="TIME", parser=parse_duration, help="End then: 10s, 2m, 1h."),
    ] = None,
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
        call(
            attachment,
            lambda client: _print_all(client, client.follow(chosen), count, duration, text),
        )
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


def _pattern(text: str) -> "re.Pattern[bytes]":
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint="--grep") from None


async def _print_all(
    client: "Client",
    messages: "MessageTail",
    count: int | None,
    duration_s: float | None,
    text: "Callable[[TailMessage], str]",
) -> None:
    from pbus_cli.live.printer import LinePrinter, feed, stream_writer

    printer = LinePrinter(stream_writer(sys.stdout), says_dropped=False)
    async with messages:
        if sys.stderr.isatty():
            console.note(f"following {client.project} (Ctrl-C ends it)")
        try:
            await feed(printer, _print(messages, printer, count, duration_s, text))
        finally:
            _say_missed(messages.missed + printer.dropped)


async def _print(
    messages: "MessageTail",
    printer: "LinePrinter",
    count: int | None,
    duration_s: float | None,
    text: "Callable[[TailMessage], str]",
) -> None:
    import asyncio

    printed = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(duration_s):
            async for message in messages:
                if count is None:
                    printer.put(text(message))
                    continue
                await printer.put_all(text(message))
                printed += 1
                if printed >= count:
                    return


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
