"""`pbus postmortem`: the ends of workers with an error, also of a project that is stopped."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.completing import crashed_names
from pbus_cli.input.options import AsJson, ProjectName, RunNumber, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pbus.process.project.history.capsule import Capsule
    from pbus.process.project.history.run_history import Run
    from pbus.process.project.project import Project


def postmortem(
    worker: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKER",
            help="Whose; the name of replicas means all of them.",
            autocompletion=crashed_names,
            show_default=False,
        ),
    ] = None,
    run: RunNumber = None,
    as_list: Annotated[
        bool, typer.Option("--list", help="All that are kept, one a line, newest first.")
    ] = False,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Show the newest end of a worker with an error: reason, open work, usage, log, stacks.

    Exit code 1 where none is kept. JSON as README has it; times in Unix seconds.
    """
    from pbus_cli.call.kept_project import kept_project, kept_runs, log_filter

    kept, record = kept_project(project, file)
    runs = kept_runs(kept)
    log_filter(runs, None, None, None, run)  # refuses a number of no run
    _tell_crash(runs, run)
    found = _capsules(kept, worker, run, is_whole=as_list)
    if not found and worker is not None:
        _refuse_unknown(kept, worker)
    if as_list:
        _list(kept, found, as_json=as_json)
        return
    if not found:
        of = "" if worker is None else f" of {worker}"
        within = "" if run is None else f" in run {run}"
        console.fail(f"no end with an error{of}{within} is kept of {kept.name}")
        raise typer.Exit(console.FAILED)
    from msgspec.structs import asdict

    from pbus_cli.call.past_work import fates_of

    fates = fates_of(kept, record, found[0])
    if as_json:
        console.say_json({**asdict(found[0]), "fates": fates})
        return
    from pbus_cli.views.tables.capsule_text import capsule_lines

    console.say("\n".join(capsule_lines(found[0], fates)))


def _capsules(
    project: "Project", worker: str | None, run: int | None, *, is_whole: bool
) -> "list[Capsule]":
    """The capsules that are meant, newest first; only the first one unless all are wanted."""
    from pbus.process.project.history.capsule_files import read_capsules

    def say_damage(path: Path, why: str) -> None:
        console.warn(f"{path} is left out: {why}")

    found: list[Capsule] = []
    try:
        for one in read_capsules(project, worker, say_damage):
            if run in {None, one.run}:
                found.append(one)
                if not is_whole:
                    break
    except OSError as error:
        console.warn(f"the crash capsules of {project.name} cannot be read: {error}")
    return found


def _tell_crash(runs: "Sequence[Run]", meant: int | None) -> None:
    """Say that the newest run has no capsule of its last end, if its supervisor was killed."""
    if not runs or runs[-1].outcome != "crashed" or meant not in {None, runs[-1].number}:
        return
    of_run = f"--run {runs[-1].number}"
    console.note(
        f"run {runs[-1].number} crashed: its supervisor was killed, and all workers with it; the next start"
        f" writes capsules of them, what was kept is shown by `pbus logs {of_run}`, `pbus events {of_run}` and `pbus tail {of_run}`"
    )


def _refuse_unknown(project: "Project", worker: str) -> None:
    from pbus.names import stands_for, unknown_name
    from pbus.process.project.history.capsule_files import read_capsules
    from pbus_cli.input.name_hints import unknown_text

    known = {name for one in read_capsules(project) for name in one.workers}
    known.update(project.log_paths())
    if not any(stands_for(worker, name) for name in known):
        text = unknown_text(unknown_name("worker", worker, known))
        raise typer.BadParameter(text, param_hint="WORKER")


def _list(project: "Project", found: "Sequence[Capsule]", *, as_json: bool) -> None:
    if as_json:
        keys = ("run", "worker", "pid", "ended", "reason", "code", "signal", "error", "sequel")
        shown = [{key: getattr(one, key) for key in keys} for one in found]
        console.say_json({"project": project.name, "capsules": shown})
    elif not found:
        console.note(f"no end with an error is kept of {project.name}")
    else:
        from shutil import get_terminal_size

        from pbus_cli.views.tables.capsule_text import list_lines

        width = get_terminal_size().columns if console.is_terminal() else None
        console.say("\n".join(line.plain.rstrip() for line in list_lines(found, width)))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(postmortem)
