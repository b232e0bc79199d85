"""`pbus up`: runs a topology, in the foreground with a display or in the background."""

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.options import AsJson, FileArgument, MergedFiles, Plain, merged_files
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pbus.client import Attachment
    from pbus.process.project.project import Project
    from pbus.process.project.record import ProjectRecord
    from pbus.process.supervisor.supervisor import Supervisor
    from pbus.topology import Topology
    from pbus.topology.selection import Selection
    from pbus_cli.live.live_display import LiveDisplay

_READY_S = 60.0


def up(
    path: FileArgument = None,
    file: MergedFiles = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Run in the background.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when all workers are ready; implies -d.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0, help="Seconds that --wait may take.")
    ] = _READY_S,
    only: Annotated[
        str,
        typer.Option("--only", metavar="A,B", help="Start only these workers, and what they need."),
    ] = "",
    no_deps: Annotated[
        bool, typer.Option("--no-deps", help="With --only: without what they depend on.")
    ] = False,
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", metavar="NAME", help="Also start the workers of this profile."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Restart workers whose files change.")
    ] = False,
    plain: Plain = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show what would be done: 10 if anything, else 0."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start the workers and show what they do; apply the edited file where they run already.

    A running project is changed by what differs: workers are added, removed, restarted, scaled, and
    all others left alone. Nothing happens while the file has mistakes.

    Examples: pbus up · pbus up --dry-run · pbus up -d --wait
    """
    topology, record = _load(path, file)
    selection = _selection(topology, only, profile or (), with_dependencies=not no_deps)
    if record is not None or dry_run:
        from pbus_cli.call.apply_changes import How, apply_or_show

        how = How(action="apply", timeout_s=timeout, is_dry=dry_run, as_json=as_json)
        code = apply_or_show(topology, selection, record, how, is_watching=watch)
    elif topology.bus.is_in_process:
        code = _in_process(topology, selection, in_background=detach or wait, is_watching=watch)
    elif detach or wait:
        timeout_s = timeout if wait else None
        code = _detached(topology, selection, watch=watch, timeout_s=timeout_s, as_json=as_json)
    else:
        _refuse_json(as_json)
        code = _foreground(topology, selection, is_watching=watch, plain=plain)
    if code:
        raise typer.Exit(code)


def _load(
    path: "Path | None", files: "Sequence[Path] | None"
) -> "tuple[Topology, ProjectRecord | None]":
    """Load the topology: that of the project which runs from the usual file, where none is given."""
    from pbus.topology import load_topology

    topology = load_topology(merged_files(path, files), os.environ)
    record = _running(topology)
    if record is not None and record.overrides and not (path or files):
        topology = load_topology(record.files, os.environ)
    return topology, record


def _running(topology: "Topology") -> "ProjectRecord | None":
    """The record of the project where it runs already.

    Raises:
        RenamedProjectError: It runs under the name that the file had before.
        ProjectRunningError: It is a `pbus run` with a broker of its own.
    """
    from pbus.errors import ProjectRunningError, RenamedProjectError
    from pbus.process.project.discovery import renamed_of, running_of
    from pbus.process.project.project import Project

    project = Project.of(topology)
    record = running_of(project)
    is_named_outside = ("name",) in topology.secrets  # one file may make several projects
    if record is None and not is_named_outside and (other := renamed_of(project)) is not None:
        raise RenamedProjectError(project.name, other.name, other.pid)
    if record is not None and not record.has_supervisor:
        raise ProjectRunningError(project.name, project.folder, record.pid)
    return record


def _selection(
    topology: "Topology", only: str, profiles: "Sequence[str]", *, with_dependencies: bool
) -> "Selection":
    """The selection by --only, --profile and $PBUS_PROFILES; all names must exist."""
    from pbus.topology.selection import Selection

    names = _words(only)
    instances = topology.instances()
    _check_known("worker", names, {*topology.workers, *(one.name for one in instances)}, "--only")
    chosen = [name for text in profiles for name in _words(text)]
    there = {one for spec in topology.workers.values() for one in spec.profiles}
    _check_known("profile", chosen, there, "--profile")
    lasting = [one for one in _words(os.environ.get("PBUS_PROFILES", "")) if one in there]
    return Selection(
        only=frozenset(names),
        profiles=frozenset([*chosen, *lasting]),
        with_dependencies=with_dependencies,
    )


def _check_known(kind: str, names: "Sequence[str]", known: set[str], option: str) -> None:
    from pbus.names import unknown_name
    from pbus_cli.input.name_hints import unknown_text

    for name in names:
        if name not in known:
            text = unknown_text(unknown_name(kind, name, known))
            raise typer.BadParameter(text, param_hint=option)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _in_process(
    topology: "Topology", selection: "Selection", *, in_background: bool, is_watching: bool
) -> int:
    from pbus_cli.launch.memory_project import host

    _prepare(topology)
    if is_watching:
        problem = "`backend: memory` runs all workers in one process, which cannot load them again"
        raise typer.BadParameter(problem, param_hint="--watch")

    if in_background:
        problem = (
            "`backend: memory` is for a debugger, so it runs in the foreground: leave this out"
        )
        raise typer.BadParameter(problem, param_hint="-d/--wait")
    return host(topology, selection)


def _refuse_json(is_wanted: bool) -> None:
    if is_wanted:
        problem = "what runs in the foreground shows itself: add -d"
        raise typer.BadParameter(problem, param_hint="--json")


def _prepare(topology: "Topology") -> None:
    """Prepare this process for a start."""
    from pbus.process.system.inherited_signals import undo_signals
    from pbus_cli.launch.advice import warn_of_open_bus

    warn_of_open_bus(topology.bus)
    undo_signals()


def _foreground(
    topology: "Topology", selection: "Selection", *, is_watching: bool, plain: bool
) -> int:
    from pbus.process.project.project import Project
    from pbus.process.supervisor.supervisor import Supervisor
    from pbus.process.system.container_init import go_on_in_child
    from pbus.process.system.event_loop import run_patiently

    _prepare(topology)
    if (ended := go_on_in_child()) is not None:
        return ended
    project = Project.of(topology)
    project.make_state_dir()

    async def run() -> int:
        supervisor = Supervisor(topology, project, selection=selection, is_watching=is_watching)
        if plain or not console.is_terminal():
            return await _in_lines(project, supervisor)
        return await _on_screen(topology, project, supervisor)

    code = run_patiently(run())
    _say_kept(project)
    return code


def _say_kept(project: "Project") -> None:
    from pbus.process.project.recovery_log import RecoveryLog
    from pbus_cli.input.name_hints import kept_text
    from pbus_cli.live.printer import print_within

    if count := RecoveryLog(project.state_dir).stored_count():
        print_within(sys.stderr, f"{kept_text(count)}; `pbus up` goes on with them")


async def _in_lines(project: "Project", supervisor: "Supervisor") -> int:
    from pbus_cli.launch.foreground import supervise
    from pbus_cli.live.plain import PlainDisplay

    displays: list[PlainDisplay] = []
    names = [process.name for process in supervisor.record().processes]

    def make_display(on_closed: "Callable[[], None]") -> PlainDisplay:
        displays.append(PlainDisplay(names, on_closed=on_closed))
        return displays[0]

    code = await supervise(supervisor, project.service_log_path("supervisor"), make_display)
    if not code and displays[0].error is not None:
        raise displays[0].error
    return code


async def _on_screen(topology: "Topology", project: "Project", supervisor: "Supervisor") -> int:
    import asyncio

    from pbus_cli.launch.foreground import STOPPING, supervise
    from pbus_cli.live.live_display import LiveDisplay

    boards: list[LiveDisplay] = []
    loop = asyncio.get_running_loop()

    def stop() -> None:
        boards[0].tell(STOPPING)
        supervisor.request_stop("q")

    def leave() -> None:
        loop.call_soon_threadsafe(stop)

    def make_board(on_closed: "Callable[[], None]") -> LiveDisplay:
        boards.append(
            LiveDisplay(
                topology.name,
                _attacher(project),
                on_closed=on_closed,
                on_left=leave,
                is_owner=True,
            )
        )
        return boards[0]

    code = await supervise(supervisor, project.service_log_path("supervisor"), make_board)
    _print_endings(boards[0], supervisor)
    return code


def _attacher(project: "Project") -> "Callable[[], Attachment]":
    """Finds the project for the display's own connection; the record has the full address."""
    from pbus.client.attachment import attachment_of
    from pbus.errors import NothingRunningError

    def attach() -> "Attachment":
        record = project.read_record()
        if record is None:
            raise NothingRunningError(f"is named {project.name!r}")
        return attachment_of(record)

    return attach


def _print_endings(board: "LiveDisplay", supervisor: "Supervisor") -> None:
    """Print a line a worker, with the last words of those that failed."""
    from pbus_cli.live.printer import print_within
    from pbus_cli.live.terminal_console import terminal_console
    from pbus_cli.views.cells import plain_text
    from pbus_cli.views.endings import ending_lines

    record = supervisor.record()
    texts: list[str] = []
    screen = terminal_console(texts.append)
    for name, lines in board.last_words.items():
        for line in lines:
            screen.print(f"{name} | {plain_text(line)}", markup=False, soft_wrap=True)
    for text in ending_lines(board.endings(record), screen.width):
        screen.print(text, end="\n", soft_wrap=True)
    print_within(sys.stdout, "".join(texts).rstrip("\n"), is_clean=True)  # by the console


def _detached(
    topology: "Topology",
    selection: "Selection",
    *,
    watch: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    from pbus_cli.call.apply_changes import say_started
    from pbus_cli.call.run_command import run
    from pbus_cli.launch.detached import start

    _prepare(topology)
    since = time.time()
    pid = start(topology, selection, is_watching=watch)
    console.note(f"{topology.name} is up (supervisor pid {pid})")
    if as_json:
        say_started(topology, selection)
    if timeout_s is not None:
        run(_wait(topology, selection, since, timeout_s))
    return console.DONE


async def _wait(
    topology: "Topology", selection: "Selection", since: float, timeout_s: float
) -> None:
    """Print who is ready, and the last log lines of workers that are not."""
    from pbus.client.readiness import lines_since, wait_started
    from pbus.errors import StartupError

    try:
        await wait_started(
            topology,
            selection,
            since=since,
            timeout_s=timeout_s,
            on_ready=lambda name: console.note(f"{name} is ready"),
        )
    except StartupError as error:
        for name in error.workers:
            for line in lines_since(topology, name, since):
                console.note(f"{name} | {line.text}")
        raise


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(up)
