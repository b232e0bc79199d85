"""The table of workers: fits every width, and shows trouble first when not all fit."""

from typing import Any

import pytest

from pbus.observe import ChildRow, State, WorkerRow
from pbus.running_handlers import HandlerStatus
from pbus_cli.views import colors
from pbus_cli.views.tables.worker_table import error_lines, registry_lines, state_counts
from support.screens import SIZES, widest


def row(name: str, state: State = "ready", **changes: Any) -> WorkerRow:
    """A worker as `ps` has it."""
    values: dict[str, Any] = {
        "name": name,
        "state": state,
        "ready": state == "ready",
        "active": state == "ready",
        "runner": "runner-1",
        "host": "here",
        "pid": 4711,
        "uptime_s": 187.0,
        "restarts": 0,
        "cpu_percent": 12.3,
        "rss_bytes": 40 * 1024 * 1024,
        "received": 12_345,
        "sent": 678,
        "lost": 0,
        "queued": 0,
        "refused": 0,
    }
    return WorkerRow(**(values | changes))


def test_handler_that_takes_long_has_a_line() -> None:
    """After five seconds a handler is told below the table; a reason of trouble goes before it."""

    def in_handler(running_s: float) -> HandlerStatus:
        return HandlerStatus(name="job load", type="T", source="stt", running_s=running_s)

    rows = [
        row("quick", handler=in_handler(4.9)),
        row("slow", handler=in_handler(41.0)),
        row("ill", "unhealthy", handler=in_handler(41.0), error="status 503"),
    ]
    assert ["slow: in job load of T from stt, 41 s", "ill: status 503"] == [
        line.plain for line in error_lines(rows)
    ]
    assert [20] == [line.cell_len for line in error_lines(rows[1:2], 20)]


CROWD = [row(f"worker.{number}") for number in range(200)]


@pytest.mark.parametrize(("width", "_"), SIZES)
def test_no_line_too_wide(width: int, _: int) -> None:
    """Long names and every optional column at once still fit."""
    rows = [
        row("a-worker-with-a-name-of-sixty-four-characters-as-long-as-allowed", lost=3, queued=9),
        row("b", "unresponsive", restarts=12, host="elsewhere.example.org"),
        row("日本語の名前" * 5),
    ]

    assert widest(registry_lines(rows, width)) <= width


def test_columns_of_worker() -> None:
    """All the issue asks for stands in one line."""
    heading, line = registry_lines([row("librarian")], 80)

    assert heading.plain.split() == ["NAME", "STATE", "PID", "UPTIME", "CPU", "MEMORY", "IN", "OUT"]
    assert line.plain.split() == [
        "librarian",
        "ready",
        "4711",
        "3m07s",
        "12%",
        "40",
        "MB",
        "12.3k",
        "678",
    ]


def test_figures_align_right() -> None:
    """Figures end where their heading ends."""
    lines = registry_lines([row("a", received=7), row("b", received=9_999)], 80)
    end = lines[0].plain.index("IN") + 2

    assert ["7", "9,999"] == [line.plain[:end].split()[-1] for line in lines[1:]]


def test_lost_column_when_lost() -> None:
    """Losses get a column of their own that no width drops."""
    lines = registry_lines([row("a"), row("b", lost=14)], 40)

    assert "LOST" in lines[0].plain
    assert lines[2].plain.endswith("14")
    assert any(span.style == colors.LOST for span in lines[2].spans)


def test_no_lost_column_otherwise() -> None:
    """Nothing lost, nothing said."""
    assert "LOST" not in registry_lines([row("a")], 200)[0].plain


def test_narrow_keeps_name_state() -> None:
    """What fits least goes first; name and state always stay."""
    heading, line = registry_lines([row("librarian", queued=4, restarts=1)], 30)

    assert heading.plain.split()[:2] == ["NAME", "STATE"]
    assert line.plain.split()[:2] == ["librarian", "ready"]
    assert widest([heading, line]) <= 30


def test_all_shown_in_order() -> None:
    """Where all fit, nothing jumps: the order stays as given."""
    rows = [row("z"), row("a", "failed"), row("m")]
    names = [line.plain.split()[0] for line in registry_lines(rows, 80, 10)[1:]]

    assert names == ["z", "a", "m"]


def test_crowd_is_summarised() -> None:
    """Two hundred workers take no more lines than there are."""
    lines = registry_lines(CROWD, 80, 10)

    assert len(lines) == 10
    assert lines[-1].plain == "… 192 more ready"


def test_failed_come_first() -> None:
    """A failed worker among hundreds is the first that is seen."""
    crowd = [*CROWD, row("late", "starting"), row("limping", lost=5), row("broken", "failed")]
    names = [line.plain.split()[0] for line in registry_lines(crowd, 80, 8)[1:]]

    assert names[:3] == ["broken", "limping", "late"]


def test_summary_names_states() -> None:
    """The rest is counted by state."""
    crowd = [*CROWD[:50], *(row(f"s{number}", "starting") for number in range(50))]

    assert registry_lines(crowd, 80, 6)[-1].plain == "… 46 more starting, 50 more ready"


def test_inactive_is_said() -> None:
    """A ready worker that does not take part is told from the others."""
    assert "ready, inactive" in registry_lines([row("a", active=False)], 80)[1].plain


def test_hosts_when_several() -> None:
    """The host matters as soon as there are two."""
    one = registry_lines([row("a"), row("b")], 200)
    two = registry_lines([row("a"), row("b", host="there")], 200)

    assert ("HOST" in one[0].plain, "HOST" in two[0].plain) == (False, True)


def test_unlimited_width_cuts_nothing() -> None:
    """Piped output is whole."""
    name = "x" * 300

    assert name in registry_lines([row(name)])[1].plain


def test_state_counts_text() -> None:
    """How many are ready, then what else there is."""
    rows = [row("a"), row("b", "failed"), row("c", "backoff"), row("d")]

    assert state_counts(rows).plain == "2/4 ready, 1 failed, 1 backoff"


@pytest.mark.parametrize("style", sorted({*colors.STATES.values(), colors.ALARM, "dim"}))
def test_colors_suit_light_themes(style: str) -> None:
    """No white, no bright colour: those vanish on a light background."""
    assert not any(word in style for word in ("white", "bright", "#"))


def child(name: str, depth: int = 1, **changes: Any) -> ChildRow:
    """A worker that another one added."""
    values = {"active": True, "uptime_s": 7.0, "received": 5, "sent": 6, "working": 0}
    return ChildRow(name=name, depth=depth, **(values | changes))


FAMILY = [
    row("root", children=(child("kid"), child("grandkid", 2, active=False), child("last"))),
    row("alone", lost=2, restarts=3),
]


def test_children_stand_below_their_root() -> None:
    """Each by its depth, with its own figures; what is of the process stands at the root only."""
    lines = [line.plain for line in registry_lines(FAMILY, 100)]

    assert ["root", "└ kid", "└ grandkid", "└ last", "alone"] == [
        line.split("ready")[0].strip() for line in lines[1:]
    ]
    assert [2, 4, 2] == [len(line) - len(line.lstrip(" ")) + 2 for line in lines[2:5]]
    assert ["ready", "-", "7s", "-", "-", "5", "6", "0", "0"] == lines[2].split()[2:]
    assert "ready, inactive" in lines[3]
    assert "4711" not in "".join(lines[2:5])


def test_children_far_below_are_shown() -> None:
    """A depth that a foreign lease claims takes no room."""
    deep = row("root", children=(child("kid", 10**9), child("odd", -5)))

    assert widest(registry_lines([deep], None)) < 120
    assert ["└ kid", "└ odd"] == [
        line.plain.split("ready")[0].strip() for line in registry_lines([deep])[2:]
    ]


def test_children_give_way_to_workers() -> None:
    """Where they do not all fit, only root workers are shown and counted."""
    full, short = registry_lines(FAMILY, 100, 6), registry_lines(FAMILY, 100, 5)

    assert (6, 3) == (len(full), len(short))
    assert not any("└" in line.plain for line in short)
    assert "2/2 ready" == state_counts(FAMILY).plain
