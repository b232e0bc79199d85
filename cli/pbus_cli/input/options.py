"""Options that several commands share, and how their values are read."""

import re
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from pbus_cli.input.completing import project_names, worker_names

_UNITS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h|)")


def parse_duration(text: str) -> float:
    """Seconds from a text such as "10s", "1.5m", "500ms" or "2h"; a bare number is seconds.

    Raises:
        typer.BadParameter: The text is no duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        message = f"{text!r} is no duration: use for example 500ms, 10s, 1.5m or 2h"
        raise typer.BadParameter(message)
    return float(found[1]) * _UNITS[found[2]]


def parse_moment(text: str) -> float:
    """Unix seconds from a time ("2026-11-28 05:30", with or without a zone) or a time ago ("10m").

    Raises:
        typer.BadParameter: The text is neither.
    """
    if _DURATION.fullmatch(text.strip()) is not None:
        return time.time() - parse_duration(text)
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError):
        message = f"{text!r} is no time: use for example 10m (ago), 2026-11-28 or 2026-11-28T05:30"
        raise typer.BadParameter(message) from None


ProjectName = Annotated[
    str | None,
    typer.Option(
        "-p",
        "--project",
        metavar="NAME",
        help="The running project, by name.",
        show_default=False,
        autocompletion=project_names,
    ),
]
TopologyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "-f", "--file", metavar="FILE", help="The project, by topology file.", show_default=False
    ),
]
MergedFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "-f",
        "--file",
        metavar="FILE",
        help="The topology; given again, one that is merged into the first.",
        show_default=False,
    ),
]
Count = Annotated[
    int | None, typer.Option("-n", "--count", metavar="N", min=1, help="End after so many.")
]
Duration = Annotated[
    float | None,
    typer.Option("--for", metavar="TIME", parser=parse_duration, help="End then: 10s, 2m, 1h."),
]
Since = Annotated[
    float | None,
    typer.Option(
        "--since",
        metavar="TIME",
        parser=parse_moment,
        help="From then on: 10m (ago), 2026-11-28T05:30.",
    ),
]
Until = Annotated[
    float | None,
    typer.Option("--until", metavar="TIME", parser=parse_moment, help="Before then; likewise."),
]
Grep = Annotated[
    str | None, typer.Option("--grep", metavar="RE", help="Only where this is found in the text.")
]
RunNumber = Annotated[
    int | None,
    typer.Option("--run", metavar="N", min=1, help="Of this run only: see `pbus runs`."),
]
LogLines = Annotated[
    int, typer.Option("-n", "--lines", metavar="N", min=0, help="Log lines that are shown first.")
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Print log lines instead of the live display.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="The topology.", show_default="./topology.yaml"),
]
DEFAULT_FILE: Final = Path("topology.yaml")


def merged_files(argument: Path | None, options: Sequence[Path] | None) -> tuple[Path, ...]:
    """The files of a topology, as argument and by options; the usual one where there are none."""
    first = () if argument is None else (argument,)
    return (*first, *(options or ())) or (DEFAULT_FILE,)


WorkerNames = Annotated[
    list[str],
    typer.Argument(
        metavar="WORKER",
        help="Which; the name of replicas means all of them, * and ? match.",
        autocompletion=worker_names,
    ),
]
OptionalWorkerNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="WORKER",
        help="Which, all if none is named; the name of replicas means all of them, * and ? match.",
        autocompletion=worker_names,
        show_default=False,
    ),
]
OrderTimeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        min=0,
        help="Seconds until giving up (60); jobs in hand get as many (30).",
        show_default=False,
    ),
]
