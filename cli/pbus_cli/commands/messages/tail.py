"""`pbus tail`: the messages of a project as they pass."""

import enum
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pbus_cli.input.completing import job_ids, type_names, worker_names, worker_or_type_names
from pbus_cli.input.options import AsJson, Count, Duration, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from pbus.client import Client
    from pbus.client.traffic.message_filter import Filter
    from pbus.client.traffic.message_values import MessageValues
    from pbus_cli.input.completing import Completer
    from pbus_cli.live.tail_output import Formatter


class Format(enum.StrEnum):
    """The forms of a message."""

    TEXT = "text"
    JSON = "json"
    CLOUDEVENTS = "cloudevents"


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
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="NAME",
            help="Not from, to or of this worker or type; type=NAME, source=, target=, key=, category= mean one of them.",
            autocompletion=worker_or_type_names,
        ),
    ] = None,
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job",
            metavar="ID",
            help="All messages of this job: request, updates, stream, answer, cancel.",
            autocompletion=job_ids,
        ),
    ] = None,
    trace: Annotated[
        list[str] | None,
        _only("--trace", "ID", "of this trace, a whole conversation: see trace_id of --json"),
    ] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", metavar="RE", help="Only where this matches the JSON.")
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            metavar="EXPR",
            help="Only where this JMESPath expression holds for what --json prints.",
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=1, help="Of so many of these, one.")
    ] = 1,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Without the messages' own fields.")
    ] = False,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--fields",
            metavar="A,B",
            help="Only these values: of the header, or paths into the message's own fields.",
        ),
    ] = None,
    count: Count = None,
    duration: Duration = None,
    as_json: AsJson = False,
    shape: Annotated[
        Format | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"One of {', '.join(Format)}; JSON is one object a line.",
            show_default="text",
        ),
    ] = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Follow the messages, without their workers' help. Each filter can be given several times."""
    from pbus.errors import NothingRunningError
    from pbus_cli.call.attach import call, choose

    chosen = _filter_of({
        "source": source,
        "target": target,
        "type": type_name,
        "category": category,
        "key": key,
        "pattern": grep,
        "exclude": exclude,
        "job": job,
        "trace": trace,
        "match": match,
        "sample": sample,
        "headers_only": headers_only,
    })
    form = _form(shape, as_json=as_json)
    values = _values(fields, form)
    attachment = choose(project, file)
    text = _formatter(form, values, attachment.project)

    async def follow(client: "Client") -> None:
        def say_end(passed: int, missed: int) -> None:
            _say_missed(passed, missed)
            _say_unmatched(chosen, values)

        await _follow(client, chosen, count, duration, text, say_end)

    try:
        call(attachment, follow)
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


def _form(shape: Format | None, *, as_json: bool) -> Format:
    if shape is not None:
        return shape
    return Format.JSON if as_json else Format.TEXT


def _filter_of(options: dict[str, Any]) -> "Filter":
    """The filter of the options that were given."""
    from pbus.client.traffic.message_filter import filter_of
    from pbus.errors import MatchExpressionError

    given: Any = {name: value for name, value in options.items() if value is not None}
    try:
        return filter_of(given)
    except re.error as error:
        pattern = options["pattern"]
        raise typer.BadParameter(f"{pattern!r}: {error}", param_hint="--grep") from None
    except MatchExpressionError as error:
        text = f"{error.message}; {error.hint}"
        raise typer.BadParameter(text, param_hint="--match") from None


def _values(fields: list[str] | None, form: Format) -> "MessageValues | None":
    if fields is None:
        return None
    from pbus.client.traffic.message_values import MessageValues
    from pbus_cli.live.tail_output import paths_of

    if form is Format.CLOUDEVENTS:
        message = "an event has all its attributes: leave out --format cloudevents"
        raise typer.BadParameter(message, param_hint="--fields")
    paths = paths_of(fields)
    if not paths:
        raise typer.BadParameter("name at least one, as in source,text", param_hint="--fields")
    return MessageValues(paths)


def _formatter(form: Format, values: "MessageValues | None", project: str) -> "Formatter":
    from pbus_cli.live import tail_output

    if values is not None:
        return tail_output.value_formatter(values, is_json=form is Format.JSON)
    if form is Format.CLOUDEVENTS:
        return tail_output.event_formatter(project)
    return tail_output.json_formatter() if form is Format.JSON else tail_output.text_formatter()


async def _follow(
    client: "Client",
    chosen: "Filter",
    count: int | None,
    duration_s: float | None,
    text: "Formatter",
    say_end: "Callable[[int, int], None]",
) -> None:
    from pbus_cli.live.following import Following

    for unknown in await client.unknown_terms(chosen):
        console.warn(f"--{unknown.kind}: {unknown}")
    messages = client.follow(chosen)

    def end(dropped: int) -> None:
        say_end(messages.passed, messages.missed + dropped)

    following = Following(text, count, duration_s, may_drop=True, on_end=end)
    await following.run(client, messages)


def _say_missed(passed: int, missed: int) -> None:
    if missed:
        noun = "message" if missed == 1 else "messages"
        console.warn(
            f"{missed:,} {noun} passed unseen: they came faster than they were printed, or while the broker was away"
        )
    elif sys.stderr.isatty():
        console.note(f"{passed:,} messages have passed, 0 were missed")


def _say_unmatched(chosen: "Filter", values: "MessageValues | None") -> None:
    """Tell of conditions and fields that may be mistaken."""
    expression = chosen.expression
    if expression is not None and expression.failures:
        console.note(
            f"--match: it cannot be evaluated for {expression.failures:,} messages, which are left out: {expression.failure}"
        )
    if values is not None and values.has_seen and values.unseen:
        console.note(f"--fields: no message had {', '.join(sorted(values.unseen))}")


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(tail)
