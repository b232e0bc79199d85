"""Messages of the past, and what is told with them, printed."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import typer

from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.tails.past_timeline import KeptEntry, PastEntry, PastTimeline
from pbus.errors import PbusError
from pbus.process.project.history.log_filter import newest
from pbus.process.project.history.traffic_history import has_traffic
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus_cli.call.kept_project import RunMarks, kept_project, kept_runs, log_filter
from pbus_cli.terminal import console


class Moments(msgspec.Struct, frozen=True):
    """The options of a command that choose the past."""

    since: float | None
    until: float | None
    run: int | None

    @property
    def are_given(self) -> bool:
        """Whether one of them is given."""
        return self != Moments(None, None, None)


def refuse_without_traffic(project: Project) -> None:
    """Make sure that messages of a project are kept.

    Raises:
        typer.Exit: None are.
    """
    if not has_traffic(project):
        console.fail(
            f"no messages of {project.name} are kept",
            "`history: {traffic: true}` in its file keeps their headers",
        )
        raise typer.Exit(console.FAILED)


class PastMessages:
    """Prints the messages that a project keeps.

    Args:
        name: Of the project, as given.
        files: Its files, likewise.
        formatter: From the name of the project to a function that makes the line of an entry.
        has_marks: Say between lines where a run begins, and what passed unseen.
        kinds: "pairs", "logs" and "events", as of PastTimeline.
    """

    def __init__(
        self,
        name: str | None,
        files: Sequence[Path] | None,
        formatter: Callable[[str], Callable[[KeptEntry], str]],
        *,
        has_marks: bool,
        kinds: frozenset[str] = frozenset(),
    ) -> None:
        self._kinds = kinds
        self._given = (name, files)
        self._formatter = formatter
        self._has_marks = has_marks

    @functools.cached_property
    def _found(self) -> tuple[Project, ProjectRecord | None]:
        return kept_project(*self._given)

    @property
    def is_all_there_is(self) -> bool:
        """Whether the project does not run, and has kept some."""
        try:
            project, record = self._found
        except PbusError:
            return False  # told by the attempt to follow it
        return record is None and has_traffic(project)

    def show(self, chosen: Filter, moments: Moments, count: int | None) -> None:
        """Print those that are chosen.

        Args:
            chosen: Of the messages.
            moments: Likewise, by time and run.
            count: The newest of these only; None for all.

        Raises:
            NothingRunningError: There is no such project.
            typer.Exit: None is kept, and nothing else was asked for.
            typer.BadParameter: There is no such run.
        """
        project, record = self._found
        runs = kept_runs(project)
        when = log_filter(runs, moments.since, moments.until, None, moments.run)
        if not self._kinds - {"pairs"}:
            refuse_without_traffic(project)
        elif not has_traffic(project):
            console.note(f"no messages of {project.name} are kept")
        marks, text = RunMarks(project, runs), self._formatter(project.name)
        damaged: list[None] = []
        missed = 0

        def takes(at: float) -> bool:
            return when.takes(at, "", marks.run_at(at))

        past = PastTimeline(project, chosen, takes, lambda: damaged.append(None), self._kinds)
        for one in newest(past, count):
            missed += one.missed
            for line in self._lines(one, marks, text):
                console.say(line)
        if missed:
            console.warn(
                f"{_count(missed)} passed unseen: more than the history keeps of a second, or while the broker was away"
            )
        if damaged:
            console.warn(f"damaged lines of the history were left out: {len(damaged)}")
        if record is None:
            console.note(f"{project.name} is not running: these are of its runs")

    def _lines(
        self, one: PastEntry, marks: RunMarks, text: Callable[[KeptEntry], str]
    ) -> Iterator[str]:
        if self._has_marks:
            if mark := marks.before(one.at):
                yield mark.removesuffix("\n")
            if one.missed:
                yield f"--- {_count(one.missed)} passed unseen ---"
        if one.entry is not None:
            yield text(one.entry)


def _count(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"
