"""`pbus bench`: how fast the bus is on this machine, beside the plain client of its broker."""

import enum
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pbus.bench import Report


class LoopKind(enum.StrEnum):
    """The event loops."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class What(enum.StrEnum):
    """The benchmarks."""

    THROUGHPUT = "throughput"
    DURABLE = "durable"
    BATCH = "batch"
    DURABLE_RTT = "durable-rtt"
    STORED_JOBS = "stored-jobs"
    BACKLOG = "backlog"
    RTT = "rtt"
    JOBS = "jobs"
    FANOUT = "fanout"
    URGENT = "urgent"
    STALL = "stall"
    KEY = "key"
    COUNTS = "counts"
    FOLLOW = "follow"
    INPROC = "inproc"
    START = "start"
    SCALE = "scale"
    HELD = "held"
    ALL = "all"


def bench(
    what: Annotated[
        What, typer.Argument(metavar="WHAT", help=f"One of {', '.join(What)}.")
    ] = What.ALL,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", metavar="N", min=1, help="Messages.", show_default="each measurement's own"
        ),
    ] = None,
    size: Annotated[
        int, typer.Option("--size", metavar="N", min=0, help="Bytes a message carries.")
    ] = 256,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Receivers of a fan-out; idle workers of scale.",
            show_default="8; 100",
        ),
    ] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="The workers of scale share one process.")
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline", help="Measure plain redis-py (or the pgmq client) on the same work, too."
        ),
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Measure other systems on the same work, too (fanout, rtt, stored-jobs);"
            " needs the extra bench-peers.",
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="The broker.", show_default="a Valkey of its own"
        ),
    ] = None,
    loop: Annotated[
        LoopKind, typer.Option("--loop", help="The event loop of all processes.")
    ] = LoopKind.ASYNCIO,
    direct: Annotated[
        bool | None,
        typer.Option(
            "--direct/--no-direct",
            help="Whether processes use direct sockets (rtt measures both).",
            show_default="as a bus does",
        ),
    ] = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
    as_json: AsJson = False,
) -> None:
    """Measure the bus with processes of its own.

    On a Valkey of its own (`held`: on a Postgres), or on --url, or on the bus of a project (-p, -f), always on a channel of
    its own. Fails with 1 when messages were lost.
    """
    from pbus.bench import MEASUREMENTS, PEERS, Plan, measure
    from pbus.process.system.inherited_signals import undo_signals
    from pbus_cli.call.run_command import run

    names = list(MEASUREMENTS) if what is What.ALL else [what.value]
    if peers:
        _require_peers(names)
    undo_signals()
    plan = Plan(
        count=count,
        size=size,
        workers=workers or 8,
        many=workers or 100,
        is_in_process=in_process,
        has_baseline=baseline,
        peers=tuple(PEERS) if peers else (),
        command=_own_command(),
        loop=loop.value,
        direct=direct,
    )
    report = run(
        measure(
            names,
            plan,
            url=_broker(url, project, file),
            on_begin=lambda name: console.note(f"measuring {name} ..."),
        )
    )
    if as_json:
        console.say_json({**_fields(report), "lost": report.lost})
    else:
        _print(report)
    if report.lost:
        raise typer.Exit(console.FAILED)


def _require_peers(names: "Sequence[str]") -> None:
    """Refuse to compare where no other system is measured.

    Raises:
        typer.BadParameter: None is.
    """
    from pbus.bench import PEER_MEASUREMENTS

    if not PEER_MEASUREMENTS.intersection(names):
        with_peers = ", ".join(sorted(PEER_MEASUREMENTS))
        problem = f"no other system is measured in {names[0]!r}, only in {with_peers} (and all)"
        raise typer.BadParameter(problem, param_hint="--peers")


def _broker(url: str | None, project: str | None, files: "Sequence[Path] | None") -> str | None:
    if url is not None or (project is None and not files):
        return url
    from pbus_cli.call.attach import choose

    return choose(project, files).bus.url


def _own_command() -> tuple[str, ...]:
    """The command line of this command."""
    from pathlib import Path

    script = Path(sys.executable).with_name("pbus")
    return (str(script),) if script.exists() else (sys.executable, "-m", "pbus_cli")


def _fields(report: "Report") -> dict[str, object]:
    return {
        "environment": report.environment,
        "measurements": report.rows,
        "checks": report.checks,
        "not_measured": report.not_measured,
    }


def _print(report: "Report") -> None:
    from pbus_cli.live.terminal_console import terminal_console
    from pbus_cli.views.tables.bench_table import report_lines

    if not console.is_terminal():
        console.say("\n".join(line.plain.rstrip() for line in report_lines(report)))
        return
    screen = terminal_console()
    for line in report_lines(report, screen.width):
        screen.print(line, end="\n", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(bench)
