"""`pbus logs`: what workers wrote, of running and of stopped projects."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.completing import worker_names
from pbus_cli.input.options import DEFAULT_FILE, ProjectName
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from pbus.process.project.log_files import LogLine
    from pbus.process.project.project import Project
    from pbus.process.project.record import ProjectRecord
    from pbus_cli.live.printer import LinePrinter


def logs(
    workers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORKER",
            help="Whose; the name of replicas means all of them.",
            autocompletion=worker_names,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what comes, over restarts.")
    ] = False,
    lines: Annotated[
        int, typer.Option("-n", "--lines", metavar="N", min=0, help="How many of the newest lines.")
    ] = 100,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="As the workers wrote them: your terminal acts on control characters."
        ),
    ] = False,
    project: ProjectName = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="The project, by topology file."),
    ] = None,
) -> None:
    """Show the newest log lines of all workers or of some."""
    from pbus.client.attachment import attachment_of, while_running
    from pbus.errors import NothingRunningError
    from pbus.process.system.regular_files import kind_of
    from pbus_cli.call.run_command import run

    meant, record = _project(project, file)
    paths = _paths(meant, workers or [])
    if record is None and not follow and not meant.state_dir.exists():
        console.fail(f"{meant.name} has never run here: it has no logs", "`pbus up` starts it")
        raise typer.Exit(console.UNREACHABLE)
    for name, path in paths.items():
        if (kind := kind_of(path)) not in {"", "a file"}:
            console.warn(f"{path} is {kind}: what {name} writes is not kept")
    if not follow:
        _show(paths, lines, is_raw=raw)
    elif record is None:
        console.note(f"{meant.name} is not running; this goes on when it is (Ctrl-C ends it)")
        run(_follow(paths, lines, is_raw=raw))
    else:
        try:
            following = _follow(paths, lines, is_raw=raw)
            run(while_running(attachment_of(record), following))
        except NothingRunningError:
            console.note(f"{meant.name} has stopped")


def _project(name: str | None, files: list[Path] | None) -> "tuple[Project, ProjectRecord | None]":
    """Find the project and its record; one that is stopped is found by its file."""
    from pbus.client.attachment import is_in_worker, refuse_unseen
    from pbus.errors import NothingRunningError
    from pbus.process.project.discovery import choose_project
    from pbus.process.project.project import Project
    from pbus.topology import load_topology
    from pbus.topology.paths import working_folder

    try:
        record = choose_project(name, next(iter(files or ()), None), working_folder(), os.environ)
        refuse_unseen(record)
        return Project.of_record(record), record
    except NothingRunningError:
        found = files or [DEFAULT_FILE]
        if name is not None or (not files and is_in_worker()) or not found[0].exists():
            raise
    return Project.of(load_topology(found, os.environ)), None


def _paths(project: "Project", names: list[str]) -> "Mapping[str, Path]":
    """The log files of the workers named, replicas by their common name too."""
    from pbus.names import stands_for, unknown_name
    from pbus_cli.input.name_hints import unknown_text

    processes = _processes(project)
    logs = {*project.log_paths(), *processes.values()}
    paths = {name: project.log_path(name) for name in sorted(logs)}
    if not names:
        return paths
    known = {name: name for name in paths} | processes
    chosen: dict[str, Path] = {}
    for name in names:
        found = {log: paths[log] for key, log in known.items() if stands_for(name, key)}
        if not found:
            raise typer.BadParameter(
                unknown_text(unknown_name("worker", name, known)), param_hint="WORKER"
            )
        chosen |= found
    return chosen


def _processes(project: "Project") -> dict[str, str]:
    """Workers of the topology, which may not have written anything yet, with their processes.

    Workers of one process have the log of the first.
    """
    from pbus.errors import TopologyError
    from pbus.topology import load_topology
    from pbus.topology.policy.shared_process import process_names

    try:
        topology = load_topology((project.file, *project.overrides), os.environ)
    except TopologyError:  # edited since: the logs are there all the same
        return {}
    return process_names(topology)


def _show(paths: "Mapping[str, Path]", count: int, *, is_raw: bool) -> None:
    from pbus.process.project.log_reader import read_lines

    text, say = _texts(paths, is_raw=is_raw), console.say_raw if is_raw else console.say
    for line in read_lines(paths, count):
        say(text(line))


async def _follow(paths: "Mapping[str, Path]", count: int, *, is_raw: bool) -> None:
    """Print in a thread of its own, so that Ctrl-C works when the terminal is blocked."""
    from pbus.process.project.log_reader import follow_lines
    from pbus_cli.live.printer import LinePrinter, feed, stream_writer

    printer = LinePrinter(stream_writer(sys.stdout, is_clean=is_raw))
    text = _texts(paths, is_raw=is_raw)
    await feed(printer, _print(follow_lines(paths, last_n=count), printer, text))


async def _print(
    lines: "AsyncIterator[LogLine]", printer: "LinePrinter", text: "Callable[[LogLine], str]"
) -> None:
    async for line in lines:
        await printer.put_all(text(line))


def _texts(paths: "Mapping[str, Path]", *, is_raw: bool) -> "Callable[[LogLine], str]":
    from pbus_cli.views.log_lines import log_text, name_width

    width, has_colors = name_width(paths), console.has_colors(sys.stdout)
    return lambda line: log_text(line, width, has_colors=has_colors, is_raw=is_raw)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(logs)
