"""Crash capsules as lines of text."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from pbus.client.stacks import WorkerStacks
from pbus.process.project.history.capsule import Capsule, OpenWork, Traffic
from pbus.process.project.history.traffic_history import KeptMessage
from pbus.process.project.history.work_fates import Fate, WorkFate
from pbus_cli.terminal.clean import clean_line, without_sequences
from pbus_cli.views import colors
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import clock_time, short_bytes, short_duration, short_percent
from pbus_cli.views.run_lines import date_time
from pbus_cli.views.stack_lines import stack_lines

_BARS: Final = "▁▂▃▄▅▆▇█"
_FATES: Final[dict[Fate, str]] = {
    "answered": "answered by {by}, {status}",
    "asked again": "asked again of {by}, which has not answered yet",
    "cancelled": "cancelled by {by}",
    "abandoned": "its requester is gone; the worker that does it cancels it",
    "handled": "handled by {by}, which sent something because of it",
    "interrupted": "its handler was cut off, and it is lost",
    "lost": "lost with the process",
    "stored": "handed back to its queue, unless it was acknowledged; no trace of it since",
    "dead-lettered": "a dead letter now: see pbus dlq",
    "unknown": "handled or lost: it came after the last heartbeat",
}
_FULL_CPU: Final = 100.0  # percent; a curve of less is drawn on this scale


def list_lines(found: Sequence[Capsule], width: int | None = None) -> list[Text]:
    """A heading and one line for each, none wider than `width` (None: as wide as needed)."""

    def column(
        title: str, cells: Iterator[str], weight: int | None, *, right: bool = False
    ) -> Column:
        shown = tuple(Text(clean_line(cell)) for cell in cells)
        return Column(title, shown, right=right, gives=title == "REASON", weight=weight)

    columns = [
        column("ENDED", (date_time(one.ended) for one in found), None),
        column("RUN", ("-" if one.run is None else str(one.run) for one in found), 20, right=True),
        column("WORKER", (one.worker for one in found), None),
        column("PID", ("-" if one.pid is None else str(one.pid) for one in found), 25, right=True),
        column("THEN", (one.sequel.state for one in found), 15),
        column("REASON", (_cause(one) for one in found), 10),
    ]
    return lines(columns, width, colors.HEADING)


def capsule_lines(capsule: Capsule, fates: Sequence[WorkFate] = ()) -> Iterator[str]:
    """All of a capsule; texts of workers are on lines of their own.

    Args:
        capsule: The capsule.
        fates: Of its jobs and messages.
    """
    yield from _heading(capsule)
    yield from _open_lines(capsule.open, capsule.ended)
    yield from map(_fate_line, fates)
    yield from _usage_lines(capsule)
    if capsule.traffic is None:
        yield "messages   not kept: the supervisor does not follow them"
    else:
        yield from _traffic_lines(capsule.traffic)
    yield ""
    count = f" ({capsule.log_left_out:,} or more lines before)" if capsule.log_left_out else ""
    yield f"log{count}" if capsule.log else "log: empty"
    for line in capsule.log:
        sign = "*" if line.stream == "pbus" else "|"
        yield f"  {clock_time(line.time)} {sign} {_line(without_sequences(line.text))}"
    yield from _stack_lines(capsule)


def _heading(capsule: Capsule) -> Iterator[str]:
    run = "" if capsule.run is None else f", run {capsule.run}"
    yield f"{_line(capsule.worker)} {_line(capsule.reason)} at {date_time(capsule.ended)}{run}"
    others = [name for name in capsule.workers if name != capsule.worker]
    if others:
        yield f"with it    {_line(', '.join(others))}, in one process"
    if capsule.error:
        yield f"error      {_line(capsule.error)}"
    if capsule.is_told:
        yield "told       a command had told it to end"
    if capsule.pid is not None:
        yield f"process    {_process_text(capsule)}"
    detail = f": {_line(capsule.sequel.detail)}" if capsule.sequel.detail else ""
    yield f"then       {_line(capsule.sequel.state)}{detail}"


def _process_text(capsule: Capsule) -> str:
    words = [f"pid {capsule.pid}", f"start {capsule.start} of the run"]
    if capsule.started is not None:
        words.append(f"ran {_span(capsule.started, capsule.ended)}")
    if capsule.ready is None:
        words.append("never ready")
    else:
        words.append(f"ready for {_span(capsule.ready, capsule.ended)}")
    return ", ".join(words)


def _open_lines(open_: OpenWork, ended: float) -> Iterator[str]:
    yield f"open work  {_line(open_.fate) or 'none that is known'}"
    if open_.beat is not None:
        yield (
            f"           at its last heartbeat, {_span(open_.beat, ended)} before: "
            f"messages that waited {open_.queued:,}, accepted jobs {open_.working:,}"
        )
    for name, handler in open_.handlers.items():
        since = short_duration(handler.age_s(ended))
        yield f"           {_line(f'{name}: in {handler}')}, {since}"


def _usage_lines(capsule: Capsule) -> Iterator[str]:
    samples = capsule.usage
    if not samples:
        return
    cpu = [one.cpu_percent for one in samples]
    memory = [float(one.rss_bytes) for one in samples]
    yield f"cpu        {_curve(cpu, _FULL_CPU)} {short_percent(cpu[-1])}, at most {short_percent(max(cpu))}"
    yield f"memory     {_curve(memory)} {short_bytes(memory[-1])}, at most {short_bytes(max(memory))}"


def _curve(values: Sequence[float], least_top: float = 1.0) -> str:
    """A bar for each value, from 0 to the largest of them."""
    top = max(least_top, *values)
    last = len(_BARS) - 1
    return "".join(_BARS[min(last, max(0, round(value / top * last)))] for value in values)


def _traffic_lines(traffic: Traffic) -> Iterator[str]:
    for title, messages, ends in (
        ("messages to it", traffic.received, "source"),
        ("messages from it", traffic.sent, "target"),
    ):
        yield ""
        yield f"last {title}" if messages else f"last {title}: none seen"
        for one in messages:
            yield f"  {_message(one, ends)}"
    if traffic.missed:
        yield f"  ({traffic.missed:,} messages of the channel passed unseen)"


def _fate_line(one: WorkFate) -> str:
    """A job or message with its fate, on one line."""
    text = _FATES[one.fate].format(by=one.by, status=one.status)
    if one.kind == "job":
        what = f"open job   {one.id} of {one.source} at {one.target}"
    else:
        what = f"message    {one.type} from {one.source}"
    return f"{_line(what)}, {clock_time(one.time)}: {_line(text)}"


def _message(one: KeptMessage, end: str) -> str:
    other = one.source if end == "source" else one.target or "everyone"
    arrow = "from" if end == "source" else "to"
    words = f"{one.type} {arrow} {other}"
    if one.job_id is not None:
        words += f", job {one.job_id}"
    return f"{clock_time(one.time)} {_line(words)}, {short_bytes(one.size_bytes)}"


def _stack_lines(capsule: Capsule) -> Iterator[str]:
    if capsule.stacks is not None:
        found = WorkerStacks(
            worker=capsule.worker, pid=capsule.stacks.pid, host=None, stacks=capsule.stacks
        )
        yield ""
        yield "stacks before it was killed"
        yield from map(_line, stack_lines(found))
    elif capsule.stacks_error is not None:
        yield ""
        yield f"stacks: {_line(capsule.stacks_error)}"


def _cause(capsule: Capsule) -> str:
    return f"{capsule.reason}: {capsule.error}" if capsule.error else capsule.reason


def _span(since: float, until: float) -> str:
    return short_duration(max(0.0, until - since))


def _line(text: str) -> str:
    return clean_line(text)
