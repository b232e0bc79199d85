"""`pbus dlq`: the dead letters: messages whose handling failed too often."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.bus.queues.store import DeadLetter
    from pbus.client import Client

VERBS: Final = ("ls", "show", "requeue", "drop")

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
    file: TopologyFiles = None,
) -> None:
    """List dead letters, oldest first."""
    from pbus_cli.views.tables.queue_table import dead_lines, dead_row

    rows = [dead_row(message) for message in _dead_letters(project, file, worker)]
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
    file: TopologyFiles = None,
) -> None:
    """Print one dead message with its whole message, as JSON."""
    import msgspec

    from pbus_cli.call.attach import call, choose
    from pbus_cli.views.tables.queue_table import dead_body, dead_row

    attachment = choose(project, file)
    found = call(attachment, lambda client: client.dead_letters.get(key), ends_with_project=False)
    row = msgspec.structs.asdict(dead_row(found))
    console.say_json({**row, "message": dead_body(found)}, indent=True)


@dlq.command()
def requeue(
    keys: Keys = None,
    every: All = False,
    worker: Worker = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Put dead letters back into their queues; attempts count from 1 again."""
    _act("requeue", _chosen(keys, worker, every=every), project, file, as_json=as_json)


@dlq.command()
def drop(
    keys: Keys = None,
    every: All = False,
    worker: Worker = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Remove dead letters for good."""
    _act("drop", _chosen(keys, worker, every=every), project, file, as_json=as_json)


def _chosen(keys: Sequence[str] | None, worker: str | None, *, every: bool) -> dict[str, Any]:
    if bool(keys) == (every or worker is not None):
        problem = "name dead letters by KEY, or choose them with --worker or --all"
        raise typer.BadParameter(problem, param_hint="KEY")
    return {"keys": list(keys or ()), "worker": worker, "every": every and worker is None}


def _dead_letters(
    project: str | None, file: Sequence[Path] | None, worker: str | None
) -> "Sequence[DeadLetter]":
    from pbus_cli.call.attach import call, choose

    attachment = choose(project, file)
    return call(
        attachment, lambda client: client.dead_letters.list(worker), ends_with_project=False
    )


def _act(
    verb: str,
    chosen: dict[str, Any],
    project: str | None,
    file: Sequence[Path] | None,
    *,
    as_json: bool,
) -> None:
    from pbus.errors import DeadLetterNotFoundError
    from pbus_cli.call.attach import call, choose

    attachment, unknown = choose(project, file), None

    async def act(client: "Client") -> int:
        dead_letters = client.dead_letters
        treat = dead_letters.requeue if verb == "requeue" else dead_letters.drop
        return await treat(*chosen["keys"], worker=chosen["worker"], every=chosen["every"])

    try:
        count = call(attachment, act, ends_with_project=False)
    except DeadLetterNotFoundError as error:
        count, unknown = error.done, error
    if as_json:
        console.say_json({"requeued" if verb == "requeue" else "dropped": count})
    else:
        done = "back in their queues" if verb == "requeue" else "dropped"
        console.note(f"{count:,} dead letters {done}")
    if unknown is not None:
        raise unknown


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.add_typer(dlq)
