"""`pbus logs`: what workers wrote, of running and of stopped projects."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pbus_cli.input.completing import worker_names
from pbus_cli.input.options import AsJson, Grep, ProjectName, RunNumber, Since, Until
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping

    from pbus.process.project.history.log_filter import LogFilter
    from pbus.process.project.log_files import LogLine
    from pbus.process.project.project import Project
    from pbus.process.project.record import ProjectRecord
    from pbus_cli.call.kept_project import RunMarks
    from pbus_cli.live.printer import LinePrinter

_USUAL_LINES: Final = 100


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
        int | None,
        typer.Option(
            "-n",
            "--lines",
            metavar="N",
            min=0,
            help="How many of the newest lines (100, or all that are chosen by what follows).",
            show_default=False,
        ),
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("-t", "--timestamps", help="The time before each line, in UTC.")
    ] = False,
    since: Since = None,
    until: Until = None,
    grep: Grep = None,
    run_number: RunNumber = None,
    as_json: AsJson = False,
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
    """Show the newest log lines of all workers or of some, of this run and earlier ones.

    A line tells where a run begins. JSON, one object a line: time, run, worker, stream, text.
    """
    from pbus_cli.call.kept_project import RunMarks, kept_project, kept_runs, log_filter
    from pbus_cli.call.log_paths import log_paths

    meant, record = kept_project(project, file)
    paths = log_paths(meant, workers or [])
    if record is None and not follow and not meant.state_dir.exists():
        console.fail(f"{meant.name} has never run here: it has no logs", "`pbus up` starts it")
        raise typer.Exit(console.UNREACHABLE)
    _warn_of_odd_files(paths)
    runs = kept_runs(meant)
    chosen = log_filter(runs, since, until, grep, run_number)
    count = _USUAL_LINES if lines is None and chosen.is_open else lines
    view = _LogView(
        RunMarks(meant, runs), paths, chosen, is_json=as_json, is_raw=raw, has_times=timestamps
    )
    if follow:
        _refuse_ends(chosen)
        _go_on(view.follow(count), meant, record)
    else:
        view.show(count)


def _refuse_ends(chosen: "LogFilter") -> None:
    if chosen.until is not None or chosen.run is not None:
        message = "it goes on with what comes: leave out --until and --run"
        raise typer.BadParameter(message, param_hint="--follow")


def _go_on(
    following: "Coroutine[Any, Any, None]", project: "Project", record: "ProjectRecord | None"
) -> None:
    from pbus.client.attachment import attachment_of, while_running
    from pbus.errors import NothingRunningError
    from pbus_cli.call.run_command import run

    if record is None:
        console.note(f"{project.name} is not running; this goes on when it is (Ctrl-C ends it)")
        run(following)
        return
    try:
        run(while_running(attachment_of(record), following))
    except NothingRunningError:
        console.note(f"{project.name} has stopped")


def _warn_of_odd_files(paths: "Mapping[str, Path]") -> None:
    from pbus.process.system.regular_files import kind_of

    for name, path in paths.items():
        if (kind := kind_of(path)) not in {"", "a file"}:
            console.warn(f"{path} is {kind}: what {name} writes is not kept")


class _LogView:
    """The lines of some log files as the command shows them.

    Args:
        marks: Tells their runs.
        paths: The log file of each worker.
        chosen: The lines that are shown.
    """

    def __init__(
        self,
        marks: "RunMarks",
        paths: "Mapping[str, Path]",
        chosen: "LogFilter",
        *,
        is_json: bool,
        is_raw: bool,
        has_times: bool,
    ) -> None:
        self._marks, self._paths, self._filter = marks, paths, chosen
        self._is_raw = is_raw and not is_json
        self._text = self._json_text if is_json else self._plain_texts(has_times=has_times)

    def show(self, count: int | None) -> None:
        """Print the last lines that are there."""
        from pbus.process.project.history.log_filter import newest
        from pbus.process.project.log_reader import iter_lines, read_lines

        say = console.say_raw if self._is_raw else console.say
        if self._filter.is_open and count is not None:
            lines: Iterable[LogLine] = read_lines(self._paths, count)
        else:
            lines = newest(filter(self._takes, iter_lines(self._paths)), count)
        for line in lines:
            say(self._text(line))

    async def follow(self, count: int | None) -> None:
        """Go on with what comes.

        In a thread of its own, so that Ctrl-C works when the terminal is blocked.
        """
        from pbus.process.project.log_reader import follow_lines
        from pbus_cli.live.printer import LinePrinter, feed, stream_writer

        printer = LinePrinter(stream_writer(sys.stdout, is_clean=self._is_raw))
        lines = follow_lines(self._paths, last_n=count)
        await feed(printer, self._print(lines, printer))

    async def _print(self, lines: "AsyncIterator[LogLine]", printer: "LinePrinter") -> None:
        async for line in lines:
            self._marks.refresh()
            if self._takes(line):
                await printer.put_all(self._text(line))

    def _takes(self, line: "LogLine") -> bool:
        return self._filter.takes(line.time, line.text, self._marks.run_at(line.time))

    def _json_text(self, line: "LogLine") -> str:
        return console.json_text({
            "time": line.time,
            "run": self._marks.run_at(line.time),
            "worker": line.worker,
            "stream": line.stream,
            "text": line.text,
        })

    def _plain_texts(self, *, has_times: bool) -> "Callable[[LogLine], str]":
        from pbus.process.project.log_files import stamp
        from pbus_cli.views.log_lines import log_text, name_width

        width, has_colors = name_width(self._paths), console.has_colors(sys.stdout)

        def text(line: "LogLine") -> str:
            shown = log_text(line, width, has_colors=has_colors, is_raw=self._is_raw)
            time = f"{stamp(line.time)} " if has_times else ""
            return f"{self._marks.before(line.time)}{time}{shown}"

        return text


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(logs)
