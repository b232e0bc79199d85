"""`pbus send`: a message or a job for a worker, from the shell."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli import console
from pbus_cli.completing import job_names, type_names, worker_names
from pbus_cli.options import ProjectName, TopologyFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pbus.bus.base import WorkerBus
    from pbus.leases import Lease
    from pbus_cli.asking import Asker
    from pbus_cli.attach import Attachment
    from pbus_cli.letters import Letter

_JOB_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class _Order:
    """What the flags ask for.

    Attributes:
        letter: The message; for a job its payload only.
        target: None for everyone.
        has_deadline: A job is given up when its time is up.
        rate: Messages a second; None for as fast as it goes.
    """

    letter: "Letter"
    target: str | None
    job: str | None
    is_urgent: bool
    wait: bool
    timeout_s: float
    has_deadline: bool
    count: int
    rate: float | None


def send(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="A worker; the name of replicas means one of them.",
            autocompletion=worker_names,
        ),
    ] = None,
    to_all: Annotated[bool, typer.Option("--all", help="Send to everyone.")] = False,
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
    file: TopologyFile = None,
) -> None:
    """Send a message, or ask for a job.

    Waits up to 5 s for the target to be registered, unless messages are kept for it. A job's
    progress goes to stderr, pieces of a streamed answer to stdout, a line each, and at last the
    response.
    """
    from pbus_cli.attach import choose, while_running
    from pbus_cli.running import run

    _check_flags(target, to_all, wait=wait, kinds=(text, type_name, job), data=data)
    order = _Order(
        letter=_letter(text, type_name, data),
        target=target,
        job=job,
        is_urgent=urgent,
        wait=wait,
        timeout_s=_JOB_TIMEOUT_S if timeout is None else timeout,
        has_deadline=wait or timeout is not None,
        count=count,
        rate=rate,
    )
    attachment = choose(project, file)
    unreached = run(while_running(attachment, _send(attachment, order)))
    if unreached:
        names = ", ".join(f"{number:,} to {name}" for name, number in sorted(unreached.items()))
        console.fail(f"of {count:,} messages some reached nobody: {names}")
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


def _letter(text: str | None, type_name: str | None, data: str | None) -> "Letter":
    from pbus_cli.letters import Letter, check, read_object, text_letter

    if text is not None:
        return text_letter(text)
    letter = Letter(type_name or "", read_object(data))
    if type_name is not None:
        check(letter)
    return letter


async def _send(attachment: "Attachment", order: _Order) -> dict[str, int]:
    """Do it; returns how many messages reached nobody, by their targets."""
    from pbus.ids import new_token
    from pbus_cli.attach import open_bus

    source = f"cli-{new_token(32)}"
    async with open_bus(attachment) as bus:
        if order.job is not None and order.wait:
            await _ask(bus, order, source)
        else:
            await _post(bus, order, source)
    return {} if order.target is None else dict(bus.counters.unreached)


async def _post(bus: "WorkerBus", order: _Order, source: str) -> None:
    """Send as often as asked, to replicas in turn."""
    from pbus_cli.letters import post

    next_targets = await _targets(bus, order)
    started, reached = time.monotonic(), set[str | None]()
    for number in range(order.count):
        await _until_due(started, number, order.rate)
        targets = next_targets()
        for target in targets:
            letter = _job_letter(order) if order.job is not None else order.letter
            is_urgent = order.is_urgent and order.job is None  # a job's type says it
            await post(bus, letter, source=source, target=target, is_urgent=is_urgent)
        reached.update(targets)
    times = f"{order.count:,} x " if order.count > 1 else ""
    what = f"job {order.job!r}" if order.job is not None else order.letter.type
    names = ", ".join(sorted(name or "everyone" for name in reached))
    console.note(f"sent {times}{what} to {names}")


async def _targets(bus: "WorkerBus", order: _Order) -> "Callable[[], list[str | None]]":
    """Whom each message goes to: everyone, one of the workers meant, or all of them."""
    from pbus_cli.targets import REGISTRATION_S, find_targets, in_turn, is_away_with_mail

    if order.target is None:
        await _refuse(bus, order, await bus.leases.leases())
        return lambda: [None]
    target = order.target
    is_for_all = order.job is None and order.letter.category == "system"
    if not is_for_all and not order.is_urgent and await is_away_with_mail(bus, target):
        console.note(f"{target} is not there: what is sent is kept for it")
        return lambda: [target]
    leases = await find_targets(
        bus, order.target, within_s=min(REGISTRATION_S, order.timeout_s), usable_only=not is_for_all
    )
    await _refuse(bus, order, leases)
    if is_for_all:
        return lambda: [lease.name for lease in leases]
    if order.job is not None or order.letter.category == "data":
        _warn_of_inactive(leases)
    pick = in_turn(leases)
    return lambda: [pick().name]


async def _refuse(bus: "WorkerBus", order: _Order, leases: "Sequence[Lease]") -> None:
    """See that a message of a type that is not known here has a receiver that knows it.

    Raises:
        MessageRefusedError: It has none.
    """
    from pbus.errors import MessageRefusedError
    from pbus.ids import new_token
    from pbus_cli.letters import is_known
    from pbus_cli.refusals import Refusals

    if order.job is not None or is_known(order.letter):
        return
    letter = order.letter
    refusals = await Refusals(bus, f"cli-{new_token(32)}").of(leases, letter.type, letter.fields)
    if refusals:
        raise MessageRefusedError(letter.type, refusals)


def _warn_of_inactive(leases: "Sequence[Lease]") -> None:
    names = sorted(lease.name for lease in leases if lease.state == "ready" and not lease.active)
    if names:
        console.warn(
            f"{', '.join(names)}: inactive, drops data and refuses jobs until it is activated"
        )


async def _until_due(started: float, number: int, rate: float | None) -> None:
    """Wait until message `number` is due; late ones follow at once, so that the rate holds."""
    import asyncio

    if rate is not None:
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))


def _job_letter(order: _Order) -> "Letter":
    from pbus.ids import new_id
    from pbus_cli.asking import job_letter

    return job_letter(
        new_id(),
        order.job or "",
        order.letter.fields,
        deadline=time.time() + order.timeout_s if order.has_deadline else None,
        is_urgent=order.is_urgent,
    )


async def _ask(bus: "WorkerBus", order: _Order, source: str) -> None:
    """Ask for the job as often as asked, one after the other, and print the answers."""
    from pbus_cli.asking import Asker
    from pbus_cli.targets import REGISTRATION_S, find_targets, in_turn

    deadline = time.monotonic() + order.timeout_s
    leases = await find_targets(
        bus, order.target or "", within_s=min(REGISTRATION_S, order.timeout_s)
    )
    pick = in_turn(leases)
    asker = Asker(bus, source)
    await bus.subscribe(asker)
    started = time.monotonic()
    for number in range(order.count):
        await _until_due(started, number, order.rate)
        left = deadline - time.monotonic() if number == 0 else order.timeout_s
        await _ask_once(asker, pick(), order, max(0.0, left))


async def _ask_once(asker: "Asker", worker: "Lease", order: _Order, timeout_s: float) -> None:
    from pbus.errors import JobFailedError
    from pbus_cli.live.progress import JobDisplay
    from pbus_cli.live.suspending import suspendable

    try:
        with (
            JobDisplay(f"{order.job} at {worker.name}") as display,
            suspendable(display.suspend, display.resume),
        ):
            response = await asker.ask(
                worker,
                order.job or "",
                order.letter.fields,
                timeout_s=timeout_s,
                on_event=display.show,
                is_urgent=order.is_urgent,
            )
    except JobFailedError as error:
        traceback = error.response.get("traceback")
        if isinstance(traceback, str):
            console.note(traceback.rstrip())
        raise
    console.say_json(response, indent=console.is_terminal())


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(send)
