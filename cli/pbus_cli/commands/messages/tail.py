"""`pbus tail`: the messages of a project as they pass."""

import enum
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pbus_cli.input.completing import job_ids, type_names, worker_names, worker_or_type_names
from pbus_cli.input.options import (
    AsJson,
    Count,
    Duration,
    ProjectName,
    RunNumber,
    Since,
    TopologyFiles,
    Until,
)
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from pbus.client import Client
    from pbus.client.traffic.message_filter import Filter
    from pbus.client.traffic.message_tail import MessageTail
    from pbus.client.traffic.tails.message_pairs import PairTail
    from pbus.client.traffic.tails.message_values import MessageValues
    from pbus.client.traffic.tails.timeline import Timeline
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
    pairs: Annotated[
        bool,
        typer.Option(
            "--pairs",
            help="Requests with their answers and the time between: jobs, and messages answered by a handler.",
        ),
    ] = False,
    with_what: Annotated[
        str | None,
        typer.Option(
            "--with", metavar="WHAT", help="Also logs, events, or logs,events, in order of time."
        ),
    ] = None,
    count: Count = None,
    duration: Duration = None,
    since: Since = None,
    until: Until = None,
    run: RunNumber = None,
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
    """Follow the messages, without their workers' help. Each filter can be given several times.

    With --since, --until or --run, and where nothing runs: the headers of those that this project's
    supervisor has kept.
    """
    from pbus.errors import NothingRunningError
    from pbus_cli.call.attach import call, choose
    from pbus_cli.call.past_messages import Moments, PastMessages
    from pbus_cli.input.tail_conditions import chosen_filter, field_values, other_kinds

    chosen = chosen_filter({
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
    _refuse_events(form, fields=fields, pairs=pairs, with_what=with_what)
    values, others = field_values(fields), other_kinds(with_what)

    def formatter(name: str) -> "Formatter":
        return _formatter(form, values, name, has_kinds=bool(others))

    moments = Moments(since, until, run)
    has_marks = form is Format.TEXT and values is None
    past = PastMessages(
        project,
        file,
        formatter,
        has_marks=has_marks,
        kinds=others | ({"pairs"} if pairs else set()),
    )
    if moments.are_given or past.is_all_there_is:
        past.show(chosen, moments, count)
        _say_unmatched(chosen, values)
        return
    attachment = choose(project, file)
    text = formatter(attachment.project)

    async def follow(client: "Client") -> None:
        def say_end(passed: int, missed: int) -> None:
            _say_missed(passed, missed)
            _say_unmatched(chosen, values)

        for unknown in await client.unknown_terms(chosen):
            console.warn(f"--{unknown.kind}: {unknown}")
        followed = _followed(client, chosen, others, pairs=pairs)
        await _print(client, followed, count, duration, text, say_end)

    try:
        call(attachment, follow)
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


def _form(shape: Format | None, *, as_json: bool) -> Format:
    if shape is not None:
        return shape
    return Format.JSON if as_json else Format.TEXT


def _refuse_events(form: Format, **options: object) -> None:
    """Refuse what has no form as an event."""
    given = [name.replace("with_what", "with") for name, value in options.items() if value]
    if form is Format.CLOUDEVENTS and given:
        message = "an event is one whole message: leave out --format cloudevents"
        raise typer.BadParameter(message, param_hint=f"--{given[0]}")


def _formatter(
    form: Format, values: "MessageValues | None", project: str, *, has_kinds: bool
) -> "Formatter":
    from pbus_cli.live import tail_output

    if values is not None:
        return tail_output.value_formatter(values, is_json=form is Format.JSON)
    if form is Format.CLOUDEVENTS:
        return tail_output.event_formatter(project)
    shape = tail_output.json_formatter if form is Format.JSON else tail_output.text_formatter
    return shape(has_kinds=has_kinds)


def _followed(
    client: "Client", chosen: "Filter", others: frozenset[str], *, pairs: bool
) -> "MessageTail | PairTail | Timeline":
    if others:
        logs, events = "logs" in others, "events" in others
        return client.follow_with(chosen, logs=logs, events=events, pairs=pairs)
    return client.follow_pairs(chosen) if pairs else client.follow(chosen)


async def _print(
    client: "Client",
    followed: "MessageTail | PairTail | Timeline",
    count: int | None,
    duration_s: float | None,
    text: "Formatter",
    say_end: "Callable[[int, int], None]",
) -> None:
    from pbus_cli.live.following import Following

    def end(dropped: int) -> None:
        say_end(followed.passed, followed.missed + dropped)

    following = Following(text, count, duration_s, may_drop=True, on_end=end, rest=followed.rest)
    await following.run(client, followed)


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
