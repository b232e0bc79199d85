"""`pbus send`: a message or a job for a worker, from the shell."""

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.completing import job_names, type_names, worker_names
from pbus_cli.input.options import ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.client import Client, MessageInput
    from pbus.jobs import JobParams

_JOB_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class _SendOptions:
    """The flags of one `pbus send`.

    Attributes:
        message: The message; for a job its payload only.
        target: None for everyone.
        rate: Messages a second; None for as fast as it goes.
        key: Chooses the replica of a job.
    """

    message: "MessageInput"
    target: str | None
    job: str | None
    is_urgent: bool
    wait: bool
    timeout_s: float | None
    count: int
    rate: float | None
    key: str | None


def send(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="A worker; the name of replicas means one of them.",
            autocompletion=worker_names,
        ),
    ] = None,
    to_all: Annotated[bool, typer.Option("--all", help="Send to all workers.")] = False,
    text: Annotated[
        str | None, typer.Option("--text", metavar="T", help="Send a text frame.")
    ] = None,
    type_name: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="TYPE", help="Send a message of this type.", autocompletion=type_names
        ),
    ] = None,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="NAME", help="Ask for a job.", autocompletion=job_names),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="JSON", help="Fields or payload: JSON, @file or - (stdin)."),
    ] = None,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="Overtake queued data; a job: high priority.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="KEY", help="Of replicas, all of one key go to the same, in order."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the job; Ctrl-C cancels it.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="S",
            min=0,
            help="Seconds a job may take; 60 with --wait, else as long as it likes.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="How many times.")] = 1,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="R", min=0.001, help="Times a second.")
    ] = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Send a message, or ask for a job.

    With a TRACEPARENT in the environment it belongs to that trace.
    Waits up to 5 s for the target to be registered, unless messages are kept for it. A job's
    progress goes to stderr, pieces of a streamed answer to stdout, a line each, and at last the
    response.
    """
    from pbus.trace_context import in_trace_of
    from pbus_cli.call.attach import call, choose

    _check_flags(target, to_all, wait=wait, kinds=(text, type_name, job), data=data)
    _check_key(key, to_all=to_all)
    options = _SendOptions(
        message=_message(text, type_name, data, key),
        target=target,
        job=job,
        is_urgent=urgent,
        wait=wait,
        timeout_s=_JOB_TIMEOUT_S if timeout is None and wait else timeout,
        count=count,
        rate=rate,
        key=key,
    )
    clients: list[Client] = []

    async def do(client: "Client") -> None:
        clients.append(client)
        await (_ask(client, options) if wait else _send(client, options))

    with in_trace_of(os.environ):
        call(choose(project, file), do, is_traced=True)
    unreached = {} if target is None else clients[0].unreached
    if unreached:
        names = ", ".join(f"{number:,} to {name}" for name, number in sorted(unreached.items()))
        console.fail(f"of {count:,} messages some reached no process: {names}")
        raise typer.Exit(console.FAILED)


def _check_flags(
    target: str | None,
    to_all: bool,
    *,
    wait: bool,
    kinds: tuple[str | None, str | None, str | None],
    data: str | None,
) -> None:
    text, _, job = kinds
    if (target is None) != to_all:
        raise typer.BadParameter("give a TARGET or --all, one of them", param_hint="TARGET")
    if sum(kind is not None for kind in kinds) != 1:
        problem = "give one of --text, --type and --job"
        raise typer.BadParameter(problem, param_hint="--text")
    if text is not None and data is not None:
        raise typer.BadParameter("--text brings its own data", param_hint="--data")
    if wait and job is None:
        raise typer.BadParameter("only a --job is answered", param_hint="--wait")
    if job is not None and to_all:
        raise typer.BadParameter("a job is for one worker: give a TARGET", param_hint="--all")


def _check_key(key: str | None, *, to_all: bool) -> None:
    from pbus.routing_keys import key_problem

    problem = None if key is None else key_problem(key)
    if key is not None and to_all:
        problem = "a key chooses one of several replicas: give a TARGET"
    if problem is not None:
        raise typer.BadParameter(problem, param_hint="--key")


def _message(
    text: str | None, type_name: str | None, data: str | None, key: str | None
) -> "MessageInput":
    from pbus.client import MessageInput
    from pbus.errors import MessageInputError
    from pbus_cli.input.json_data import bad_data, read_object

    if text is not None:
        return MessageInput.text(text, key)
    message = MessageInput(type_name or "", read_object(data), key)
    try:
        return message if type_name is None else message.check()
    except MessageInputError as error:
        raise bad_data(error.message) from None


async def _send(client: "Client", options: _SendOptions) -> None:
    """Send as often as asked, to replicas in turn."""
    if options.job is not None:
        what = f"job {options.job!r}"
        route = await client.route_job(options.target or "", _params(options))
    else:
        what = options.message.type
        route = await client.route(options.target, options.message, urgent=options.is_urgent)
    if route.is_stored:
        console.note(f"{options.target} is not there: what is sent is kept for it")
    if route.inactive:
        console.warn(
            f"{', '.join(route.inactive)}: inactive, drops data and refuses jobs until it is activated"
        )
    reached = await route.send(count=options.count, rate=options.rate)
    times = f"{options.count:,} x " if options.count > 1 else ""
    if not route.is_heard:
        console.fail(
            f"{times}{what} reached no process: no worker is there", "`pbus ps` shows them"
        )
        raise typer.Exit(console.FAILED)
    console.note(f"sent {times}{what} to {', '.join(name or 'everyone' for name in reached)}")


async def _ask(client: "Client", options: _SendOptions) -> None:
    """Ask for the job as often as asked, one after the other, and print the answers."""
    import asyncio

    started = time.monotonic()
    for number in range(options.count):
        if options.rate is not None:
            due = started + number / options.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await _ask_once(client, options)


async def _ask_once(client: "Client", options: _SendOptions) -> None:
    from pbus.errors import JobFailedError
    from pbus_cli.live.progress import JobDisplay
    from pbus_cli.live.suspending import suspendable

    try:
        async with client.job(options.target or "", params=_params(options)) as asked:
            with (
                JobDisplay(f"{options.job} at {asked.worker}") as display,
                suspendable(display.suspend, display.resume),
            ):
                async for event in asked:
                    if event.type != "stream_end":  # its data is the response
                        display.show(event.type, event.data)
    except JobFailedError as error:
        traceback = error.response.get("traceback")
        if isinstance(traceback, str):
            console.note(traceback.rstrip())
        raise
    console.say_json(dict(asked.response), indent=console.is_terminal())


def _params(options: _SendOptions) -> "JobParams":
    from pbus.jobs import JobParams

    return JobParams(
        name=options.job,
        payload=dict(options.message.fields),
        timeout=options.timeout_s,
        priority="high" if options.is_urgent else "normal",
        key=options.key,
    )


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(send)
