"""`pbus dlq`: the dead letters, messages that were tried too often."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pbus_cli import console
from pbus_cli.options import AsJson, ProjectName, TopologyFile

if TYPE_CHECKING:
    from pbus.bus.queues.store import DeadLetter, QueueStore

VERBS: Final = ("ls", "show", "requeue", "drop")
_SHOWN: Final = 10_000  # what a mail store lists at once

Worker = Annotated[
    str | None,
    typer.Option("-w", "--worker", metavar="WORKER", help="Those of this worker only."),
]
Keys = Annotated[list[str] | None, typer.Argument(metavar="KEY", help="As `pbus dlq ls` shows.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]

dlq = typer.Typer(
    name="dlq", help="The dead letters: messages that were tried too often.", no_args_is_help=True
)


@dlq.command("ls")
def show_all(
    worker: Worker = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFile = None,
) -> None:
    """List dead letters, oldest first."""
    from pbus_cli.views.mail import dead_lines, dead_row

    rows = [dead_row(letter) for letter in _letters(project, file, worker)]
    if as_json:
        console.say_json({"dead_letters": rows})
    elif not rows:
        console.note("no dead letters")
    else:
        console.say("\n".join(line.plain.rstrip() for line in dead_lines(rows)))


@dlq.command()
def show(
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `pbus dlq ls` shows.")],
    project: ProjectName = None,
    file: TopologyFile = None,
) -> None:
    """Print one dead letter with its whole message, as JSON."""
    import msgspec

    from pbus_cli.views.mail import dead_body, dead_row

    found = [letter for letter in _letters(project, file, None) if letter.key == key]
    if not found:
        _refuse_unknown([key])
    row = msgspec.structs.asdict(dead_row(found[0]))
    console.say_json({**row, "message": dead_body(found[0])}, indent=True)


@dlq.command()
def requeue(
    keys: Keys = None,
    every: All = False,
    worker: Worker = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFile = None,
) -> None:
    """Put dead letters back into their mailboxes, with attempts counted anew."""
    _act("requeue", _chosen(keys, worker, every=every), project, file, as_json=as_json)


@dlq.command()
def drop(
    keys: Keys = None,
    every: All = False,
    worker: Worker = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFile = None,
) -> None:
    """Remove dead letters for good."""
    _act("drop", _chosen(keys, worker, every=every), project, file, as_json=as_json)


def _chosen(keys: Sequence[str] | None, worker: str | None, *, every: bool) -> dict[str, Any]:
    if bool(keys) == (every or worker is not None):
        problem = "name dead letters by KEY, or choose them with --worker or --all"
        raise typer.BadParameter(problem, param_hint="KEY")
    return {"keys": list(keys or ()), "worker": worker}


def _letters(project: str | None, file: Path | None, worker: str | None) -> "list[DeadLetter]":
    from pbus_cli.attach import choose, mail_of, open_bus
    from pbus_cli.running import run

    attachment = choose(project, file)

    async def read() -> "list[DeadLetter]":
        async with open_bus(attachment) as bus:
            return await mail_of(bus, attachment).dead_letters(worker)

    return run(read())


def _act(
    verb: str, chosen: dict[str, Any], project: str | None, file: Path | None, *, as_json: bool
) -> None:
    from pbus_cli.attach import choose, mail_of, open_bus
    from pbus_cli.running import run

    attachment = choose(project, file)

    async def act() -> tuple[int, list[str]]:
        async with open_bus(attachment) as bus:
            return await _act_on(mail_of(bus, attachment), verb, chosen["keys"], chosen["worker"])

    count, unknown = run(act())
    if as_json:
        console.say_json({"requeued" if verb == "requeue" else "dropped": count})
    else:
        done = "back in their mailboxes" if verb == "requeue" else "dropped"
        console.note(f"{count:,} dead letters {done}")
    if unknown:
        _refuse_unknown(unknown)


async def _act_on(
    mail: "QueueStore", verb: str, keys: list[str], worker: str | None
) -> tuple[int, list[str]]:
    act = mail.requeue_dead if verb == "requeue" else mail.drop_dead
    if keys:
        known = {letter.key for letter in await mail.dead_letters()}
        return await act([key for key in keys if key in known]), sorted(set(keys) - known)
    total = 0
    while found := [letter.key for letter in await mail.dead_letters(worker)]:
        done = await act(found)
        total += done
        if not done or len(found) < _SHOWN:
            break
    return total, []


def _refuse_unknown(keys: Sequence[str]) -> None:
    console.fail(f"no dead letter has the key {', '.join(keys)}", "see `pbus dlq ls`")
    raise typer.Exit(console.FAILED)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.add_typer(dlq)
