"""`pbus replay`: the messages of a recording are sent again, and the answers are compared."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pbus_cli.input.completing import worker_names
from pbus_cli.input.options import ProjectName, TopologyFiles, parse_duration
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pbus.client import Client
    from pbus.client.recordings.golden import Outcome
    from pbus.client.recordings.recording import Recording
    from pbus.client.recordings.replay_plan import SaidMessage
    from pbus.client.recordings.replayer import Replayer, ReplayPace

_SETTLE_S: Final = 5.0


def replay(
    recording: Annotated[Path, typer.Argument(metavar="FILE", help="The recording.")],
    speed: Annotated[
        float,
        typer.Option("--speed", metavar="X", min=0, help="So many times as fast; 0: no pauses."),
    ] = 1.0,
    step: Annotated[
        bool, typer.Option("--step", help="Wait for Enter before each message; q ends it.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="WORKER",
            help="Send only what this worker was sent, in the place of all that do not run.",
            autocompletion=worker_names,
        ),
    ] = None,
    stand_in: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="WORKER",
            help="Stand in for this worker, which must not run: send its messages, answer its jobs.",
        ),
    ] = None,
    expect: Annotated[
        Path | None,
        typer.Option(
            "--expect",
            metavar="FILE",
            help="Compare what workers say with this recording; 1 where it differs.",
            show_default=False,
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="FIELD", help="A field that may differ (* and ? match)."),
    ] = None,
    settle: Annotated[
        float | None,
        typer.Option(
            "--settle",
            metavar="TIME",
            parser=parse_duration,
            help="Wait so long without news for an answer that is missing (5s).",
            show_default=False,
        ),
    ] = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Send the messages of a recording again, in their order and at their times.

    Sent are those of clients, and of the workers that --as names; the workers that run answer for
    themselves, and a sender waits for the answers that it had before each message. With --expect the messages that they send are compared with a golden recording,
    which may be the same file.

    Example: pbus replay calls.jsonl --as caller --expect calls.jsonl
    """
    from pbus.client.recordings.replayer import ReplayPace
    from pbus_cli.call.attach import call, choose

    found = _read(recording)
    golden = None if expect is None else found if expect == recording else _read(expect)
    if golden is not None and golden.incomplete:
        console.fail(
            f"{expect} is INCOMPLETE: {golden.incomplete}", "compare with one that is complete"
        )
        raise typer.Exit(1)
    pace = ReplayPace(
        speed=speed,
        settle_s=_SETTLE_S if settle is None else settle,
        before_each=_Stepper().before_each if step else None,
    )
    names = tuple(stand_in or ())
    call(
        choose(project, file),
        lambda client: _replay(client, found, golden, pace, only, names, tuple(ignore or ())),
    )


def _read(path: Path) -> "Recording":
    from pbus.client.recordings.recording_file import read_recording

    found = read_recording(path)
    if found.incomplete:
        console.warn(f"{path} is INCOMPLETE: {found.incomplete}")
    return found


async def _replay(
    client: "Client",
    recording: "Recording",
    golden: "Recording | None",
    pace: "ReplayPace",
    only: str | None,
    stand_ins: "Sequence[str]",
    ignored: "Sequence[str]",
) -> None:
    from pbus.client.recordings.golden import Outcome
    from pbus.client.recordings.replay_plan import planned, roles_of, said_messages
    from pbus.client.recordings.replayer import Replayer

    messages = said_messages(recording)
    running = [worker.name for worker in await client.workers(ready=True)]
    roles = roles_of(messages, running, only=only, stand_ins=stand_ins)
    if roles.absent:
        console.note(f"not running, and not stood in for: {', '.join(roles.absent)}")
    wanted = [] if golden is None else said_messages(golden)
    expected = None if golden is None else Outcome(wanted, roles.real)
    replayer = Replayer(client, messages, roles)
    try:
        await replayer.run(planned(messages, roles, only=only), pace, wanted)
    except _SteppedOutError:
        console.note(f"ended after {replayer.sent:,} messages")
        raise typer.Exit(1 if expected else 0) from None
    _report(replayer, expected, ignored)


def _report(replayer: "Replayer", expected: "Outcome | None", ignored: "Sequence[str]") -> None:
    console.note(f"sent {replayer.sent:,} messages")
    if replayer.untaken:
        console.warn(f"{replayer.untaken:,} of them were taken by no worker")
    if expected is None:
        return
    from pbus.client.recordings.golden import differences
    from pbus_cli.views.difference_lines import difference_lines

    found = differences(expected, replayer.outcome, ignored)
    if replayer.missed:
        text = f"{replayer.missed:,} messages passed unseen: what is missing may have been sent"
        console.fail(text, "replay it again, with less to do beside it")
    if found:
        console.say("\n".join(difference_lines(found)))
        console.note(f"{len(found):,} differences")
    if found or replayer.missed:
        raise typer.Exit(1)
    console.note(f"{sum(expected.counts.values()):,} messages of workers are as expected")


class _SteppedOutError(Exception):
    """The user has ended the steps."""


class _Stepper:
    """Asks before each message; lines are read in a thread, which ends with the process."""

    async def before_each(self, said: "SaidMessage") -> None:
        """Show the message, and wait for a line."""
        import asyncio
        import contextlib
        import threading

        from pbus_cli.live.tail_output import text_formatter

        console.flush()
        console.note(text_formatter()(said.recorded.as_seen()))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def take(line: str) -> None:
            if not answer.done():
                answer.set_result(line)

        def read() -> None:
            line = sys.stdin.readline()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(take, line)

        threading.Thread(target=read, daemon=True).start()
        line = await answer
        if not line or line.strip().lower() == "q":
            raise _SteppedOutError


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(replay)
