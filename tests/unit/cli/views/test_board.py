"""What the panes of the display show, as values: places, folding, filters, alarms, lines in place."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from pbus.jobs.listing import JobProgress
from pbus.process.supervisor_events import Line
from pbus_cli.views import colors
from pbus_cli.views.board.arrangement import PANES, Pane, arrange, is_wide
from pbus_cli.views.board.board_snapshot import Failure
from pbus_cli.views.board.details import details, json_lines
from pbus_cli.views.board.message_panes import TrafficPane, log_pane, widest_name
from pbus_cli.views.board.pane_view import PaneView, SteadyColumns, passes, rule
from pbus_cli.views.board.signs import STATES, sign_lines
from pbus_cli.views.board.sparkline import bar, sparkline
from pbus_cli.views.board.table_panes import edge_pane, job_pane, progress_bar
from pbus_cli.views.board.top_lines import top_lines
from pbus_cli.views.board.worker_pane import steady_worker_columns, worker_items, worker_pane
from pbus_cli.views.columns import Column
from support.boards import dead, edge, folded, job, job_stats, passed, project, queues, worker_row
from support.screens import SIZES, colored, widest


@given(
    width=st.integers(0, 300),
    height=st.integers(0, 120),
    focused=st.sampled_from(PANES),
    rows=st.integers(0, 500),
    messages=st.integers(0, 500),
    is_zoomed=st.booleans(),
)
def test_panes_fill_the_room(
    width: int, height: int, focused: Pane, rows: int, messages: int, is_zoomed: bool
):
    """No two panes share a cell, none leaves the room, and the focused one is there if any is."""
    places = arrange(width, height, focused, rows=rows, messages=messages, is_zoomed=is_zoomed)

    for place in places.values():
        assert min(place.width, place.height) > 0
        assert place.x + place.width <= width
        assert place.y + place.height <= height
    for one, other in itertools.combinations(places.values(), 2):
        assert (
            one.y + one.height <= other.y
            or other.y + other.height <= one.y
            or one.x + one.width <= other.x
            or other.x + other.width <= one.x
        )
    if width and height > 20:
        assert focused in places
        lines = sum(place.height for place in places.values() if place.x == 0)
        assert lines == height


def test_crowds_leave_room():
    """Hundreds of workers leave room for messages and logs; few messages leave it to the logs."""
    crowded = arrange(80, 22, "traffic", rows=500, messages=500)
    quiet = arrange(80, 22, "traffic", rows=4, messages=0)

    assert {"workers", "traffic", "logs"} == set(crowded)
    assert min(place.height for place in crowded.values()) >= 3
    assert quiet["logs"].height > 2 * quiet["traffic"].height
    assert set(PANES) == set(arrange(*(140, 30), "logs", rows=4, messages=9))
    assert not is_wide(139, 30)


@pytest.mark.parametrize(
    ("words", "wanted", "is_passed"),
    [
        ("stt agent Transcript", "stt", True),
        ("stt agent Transcript", "STT transcript", True),
        ("stt agent Transcript", "stt frame", False),
        ("stt agent Transcript", "!frame", True),
        ("stt agent Transcript", "stt !agent", False),
        ("stt agent Transcript", "!", True),
        ("a [x] (y", "[x] (y", True),
        ("", "", True),
    ],
)
def test_filter_words(words: str, wanted: str, is_passed: bool):
    """All words, in any case and order; no pattern of any kind."""
    assert is_passed == passes(words, wanted)


@pytest.mark.parametrize("width", [80, 160])
def test_filtered_pane_counts_what_is_pinned(width: int):
    """A busy edge that is filtered out is not pinned any more."""
    view = TrafficPane().view(project(), width, is_folding=True)

    assert 1 == view.pinned
    assert (0, 1) == ((one := view.filtered("39")).pinned, len(one.items))
    assert (1, 1) == ((one := view.filtered("frame")).pinned, len(one.items))
    assert view is view.filtered("  ")


def test_columns_only_grow():
    """A column is as wide as it ever was; one that has grown stays."""
    steady = SteadyColumns({"IN": 6})

    def heading(name: str, count: str) -> str:
        columns = [
            Column("NAME", (Text(name),), right=False, gives=True),
            Column("IN", (Text(count),)),
        ]
        return steady.lines(columns, 60)[0].plain

    first = heading("a" * 12, "1")
    assert first == heading("a", "123456")
    assert len(heading("a" * 14, "1")) == len(first) + 2
    assert len(heading("a", "1")) == len(first) + 2


def test_replicas_fold():
    """A group is its sums, its worst state and how many are ready; unfolded its replicas follow."""
    rows = (
        worker_row("mic"),
        worker_row("stt.1", received=10, lost=1, cpu_percent=1.5, restarts=2, uptime_s=9.0),
        worker_row("stt.2", "unresponsive", received=5, cpu_percent=None, rss_bytes=None),
    )
    items = worker_items(rows, frozenset())
    view = worker_pane(items, queues(stt=2), steady_worker_columns(), 200)

    assert ["mic", "stt"] == [item.key for item in view.items]
    cells = view.items[1].draw().plain.split()
    assert ["▸", "stt", "x2", "1/2", "ready,", "1", "unresponsive"] == cells[:7]
    assert ["9s", "1.5%", "15"] == [cells[at] for at in (8, 9, 12)]
    assert "DEAD" in view.heading.plain
    unfolded = worker_items(rows, frozenset({"stt", "mic"}))
    assert ["mic", "stt", "stt.1", "stt.2"] == [item.name for item in unfolded]


def test_single_replica_is_a_group():
    """One that was scaled to one keeps its group's line: it can be scaled again."""
    (item,) = worker_items((worker_row("stt.1"),), frozenset())

    assert ("stt", True) == (item.name, item.is_group)


def test_failures_come_first():
    """Also those of a replica."""
    rows = (worker_row("a"), worker_row("b.1"), worker_row("b.2", "failed"), worker_row("c"))

    assert ["b", "a", "c"] == [item.name for item in worker_items(rows, frozenset())]


@pytest.mark.parametrize(
    ("rates", "width", "line"),
    [
        ((), 4, "    "),
        ((0.0, 0.0), 4, "    "),
        ((1.0, 2.0, 4.0), 4, " ▃▅█"),
        ((0.0, 1e-9, 100.0), 3, " ▁█"),
        ((1.0, 9.0, 9.0), 2, "██"),
        ((1.0,), 0, ""),
    ],
)
def test_sparkline(rates: tuple[float, ...], width: int, line: str):
    """Scaled to the highest; none is blank, a few are not; always of the same width."""
    assert line == sparkline(rates, width)


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, "-"),
        (JobProgress(percent=50), "▰▰▰▰▰▱▱▱▱▱ 50%"),
        (JobProgress(percent=1e300), "▰▰▰▰▰▰▰▰▰▰ "),
        (JobProgress(percent=-5), "▱▱▱▱▱▱▱▱▱▱ -5%"),
        (JobProgress(done=1, total=4), "▰▰▱▱▱▱▱▱▱▱ 1/4"),
        (JobProgress(done=1, total=0), "1/0"),
    ],
)
def test_progress(progress: JobProgress | None, text: str):
    """A bar where there is a share; numbers that make no sense do no harm."""
    assert progress_bar(progress).startswith(text)
    assert "▰▰" == bar(7.0, 2)


@pytest.mark.parametrize(("width", "_height"), SIZES)
def test_alarms_are_pinned(width: int, _height: int):
    """Failures, losses, dead letters and a lost broker, right under the title, in reversed red."""
    shown = project(
        rows=tuple(worker_row(f"w.{n}", lost=5) for n in range(3)),
        queues=queues(a=2, b=1),
        is_bus_lost=True,
    )
    lines = top_lines(shown, width)

    assert lines[0].plain.startswith("pbus voice  3/3 ready  up 1h02m")
    assert [
        " tts failed: exited with code 1: boom ",
        " 15 messages were lost on the way ",
        " 3 dead letters: key 6 shows why ",
        " the broker is away; workers keep running and reconnect ",
    ] == [line.plain for line in lines[1:]]
    assert widest(lines) <= width
    assert "\x1b[1;7;31m tts failed" in colored(lines[1], width)


def test_many_failures_in_one():
    """Seven failed workers take one line, not the page; one has its reason only once."""
    failures = tuple(Failure(f"bad.{n}", "boom") for n in range(7))
    assert top_lines(project(failures=failures, rows=()), 120)[1].plain.startswith(
        " 7 workers failed: bad.0, bad.1, "
    )
    bad = worker_row("bad", "failed", error="exited with code 3: boom")
    for shown, expected in (((), "bad: "), ((Failure("bad", "boom"),), " bad failed: ")):
        lines = top_lines(project(failures=shown, rows=(bad,)), 80)[1:]
        assert [True] == [line.plain.startswith(expected) for line in lines]


def test_quiet_project_has_no_alarms():
    """A title only; before the broker is there it says so."""
    shown = project(rows=(worker_row("a"),), failures=(), bus=None)

    assert [True] == ["starting the broker" in line.plain for line in top_lines(shown, 80)]


def test_traffic_sums_up():
    """How many passed and how fast; of many busy edges the number that is not shown; what was missed."""
    view = TrafficPane().view(project(), 80, is_folding=True)
    assert "12.4k seen, 51/s" == view.summary

    edges = tuple(folded(type=f"T{n}") for n in range(9))
    busy = TrafficPane().view(project(folded=edges, missed=7), 80, is_folding=True)
    assert "12.4k seen, 51/s, 3 more edges folded, 7 not shown" == busy.summary
    assert 6 == busy.pinned
    assert 40 == len(TrafficPane().view(project(folded=edges), 80, is_folding=False).items)


def test_unfolded_messages_are_in_order():
    """Those of busy edges stand among the others, by their times."""
    latest = tuple(passed(n, type="Frame") for n in (3, 5))
    one = project(messages=(passed(2), passed(4)), folded=(folded(latest=latest),))
    items = TrafficPane().view(one, 80, is_folding=False).items

    assert [2, 3, 4, 5] == [item.value.time - 1.7e9 for item in items]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_lines_fit(width: int):
    """No line is wider than its pane."""
    shown = project(edges=(edge("a" * 99, "b" * 99, 1.0),), jobs=(job(label="l" * 99),))
    views: list[PaneView] = [
        TrafficPane().view(shown, width, is_folding=True),
        log_pane(project(logs=(Line("w" * 99, "out", "x" * 999, 0.0),)), 24, width),
    ]
    for view in views:
        assert widest([item.draw() for item in view.items]) <= width
    for view in (
        edge_pane(shown.edges, (job_stats(),), SteadyColumns(), 200),
        job_pane(shown.jobs, SteadyColumns(), 200),
    ):
        assert widest([view.heading, *(item.draw() for item in view.items)]) <= 200
    assert width >= rule("t" * 99, "s" * 99, width).cell_len


def test_busiest_edge_is_first():
    """By messages, so that lines seldom change places; types without what all begin and end with."""
    edges = (
        edge("a", "b", 900.0, sent=10, handled=0, type="BusJobRequestMessage"),
        edge("c", "d", 0.0, sent=0, handled=500),
        edge("e", "f", 1.0, sent=70),
    )
    view = edge_pane(edges, (), SteadyColumns(), 120)

    assert ["c", "e", "a"] == [item.draw().plain[:1] for item in view.items]
    assert "JobRequest " in view.items[2].draw().plain
    assert "BusJobRequestMessage" == view.items[2].value.stats.type


def test_jobs_stand_below_edges():
    """With their outcomes and times; only lines of something can be chosen for more."""
    view = edge_pane((edge("a", "b", 1.0),), (job_stats(),), SteadyColumns(), 120)
    texts = [item.draw().plain for item in view.items]

    assert 4 == len(texts)
    assert ["a", "", "REQUESTER", "agent"] == [(text.split() or [""])[0] for text in texts]
    assert "7" in texts[3]
    assert "2 failed" in texts[3]
    assert [False, True, True, False] == [item.value is None for item in view.items]
    title, lines = details(view.items[3].value, {})
    assert "say" == title
    assert "failed        2" in lines
    assert 1 == len(edge_pane((edge("a", "b", 1.0),), (), SteadyColumns(), 120).items)


def test_name_column_never_shrinks():
    """Lines of logs stay aligned when the longest name has left them."""
    wide = widest_name((Line("a-long-name", "out", "", 0.0),), 0)

    assert (11, 11) == (wide, widest_name((Line("b", "out", "", 0.0),), wide))


@pytest.mark.parametrize(
    ("body", "size", "expected"),
    [
        (b'{"a":[1]}', 9, ["{", '  "a": [', "    1", "  ]", "}"]),
        (b"\xff\x00no json", 9, ["\ufffd\x00no json"]),
        (b'{"a":', 99, ['{"a":', "… (of a long message the beginning)"]),
        (b"[" * 5_000, 5_000, ["[" * 5_000]),
    ],
)
def test_message_as_lines(body: bytes, size: int, expected: list[str]):
    """Indented where it is JSON, else as it is; one that was cut says so."""
    assert expected == json_lines(body, size)


def test_details_of_all_kinds():
    """Whatever a pane shows can be told of."""
    for value in (passed(1), folded(), edge("a", "b", 1.0), job(), dead()):
        title, lines = details(value, {})
        assert title
        assert len(lines) > 4


def test_help_has_all_states():
    """Each state of a worker is explained, in its colour."""
    lines = sign_lines()

    assert set(colors.STATES) == {state for state, _ in STATES}
    assert all(any(line.plain.startswith(state) for line in lines) for state, _ in STATES)
    assert widest(lines) <= 80  # none is wrapped


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_unreached_look_different(width: int):
    """Another arrow, in words where there is room for them, and in red; folded or not."""
    for is_reached in (True, False):
        shown = project(
            messages=(passed(1, is_reached=is_reached),),
            folded=(folded(is_reached=is_reached),),
        )
        view = TrafficPane().view(shown, width, is_folding=True)
        for item in view.items:
            line = item.draw()
            assert line.cell_len <= width
            assert ("↛" in line.plain) is not is_reached
            assert ("(reached no process)" in line.plain) is (not is_reached and width > 60)
            assert any(span.style == colors.ERROR for span in line.spans) is not is_reached
