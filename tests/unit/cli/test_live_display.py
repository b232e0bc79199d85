"""What the live display is given of a supervisor and a channel, folded into a snapshot."""

import time
from typing import Any

import pytest

from pbus.client.traffic.edge_stats import EdgeStats
from pbus.errors import NothingRunningError
from pbus.observe import HostRecord, ProcessRecord
from pbus.process.supervisor_events import (
    BrokerLost,
    BrokerReady,
    Event,
    GaveUp,
    Line,
    SessionEnded,
    Started,
)
from pbus_cli.live.channel_watch import ChannelWatch
from pbus_cli.live.live_display import LiveDisplay
from pbus_cli.views.board.arrangement import Focus
from pbus_cli.views.board.board_snapshot import Snapshot
from support.boards import edge


def nowhere() -> Any:
    """No project is found."""
    raise NothingRunningError("is there")


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> LiveDisplay:
    """A display whose threads are never started."""
    made = LiveDisplay("shop", nowhere)
    monkeypatch.setattr(made._screen, "open", lambda: None)
    monkeypatch.setattr(made._watch, "open", lambda: None)
    return made


def heard(display: LiveDisplay, *events: Event) -> Snapshot:
    """The snapshot after these events."""
    for event in events:
        display.hear(event)
    shown = display.snapshot()
    assert shown is not None
    return shown


def host(*processes: ProcessRecord) -> HostRecord:
    """A supervisor's record."""
    return HostRecord(
        project="shop", host="h", pid=1, session="s1", time=time.time(), bus="b",
        processes=processes,
    )  # fmt: skip


def test_events_become_a_snapshot(display: LiveDisplay):
    """Lines, failures with their last words, the broker; a start takes a failure back."""
    shown = heard(
        display,
        BrokerReady("unix:///x"),
        Line("a", "out", "hello " + "x" * 9_999, 1.0),
        GaveUp("b", "exited with code 1", ("one", "two"), error="boom"),
        GaveUp("c", "exited with code 2", ()),
        Started("c", 7, ""),
        BrokerLost(),
    )

    assert ("shop", "unix:///x", True) == (shown.project, shown.bus, shown.is_bus_lost)
    assert [4096] == [len(line.text) for line in shown.logs]
    assert [("b", "exited with code 1: boom")] == [
        (one.worker, one.reason) for one in shown.failures
    ]
    assert {"b": ("one", "two")} == shown.last_words
    assert not heard(display, BrokerReady("unix:///x")).is_bus_lost


def test_unchanged_is_not_shown_again(display: LiveDisplay, monkeypatch: pytest.MonkeyPatch):
    """Nothing is drawn where nothing has changed but the time within a second."""
    monkeypatch.setattr(time, "monotonic", lambda: display._started + 5.25)
    assert display.snapshot() is not None
    assert display.snapshot() is None
    display.warn("the library warns")
    shown = display.snapshot()
    assert shown is not None
    assert [("pbus", "the library warns")] == [(one.worker, one.text) for one in shown.logs]
    display.look(host(ProcessRecord(name="a", state="ready", joins=False)))
    shown = display.snapshot()
    assert shown is not None
    assert ["a"] == [row.name for row in shown.rows]
    display.look(host(ProcessRecord(name="a", state="ready", joins=False)))
    assert display.snapshot() is None


def test_logs_are_bounded(display: LiveDisplay):
    """So many are kept, and all are counted."""
    shown = heard(display, *(Line("a", "out", str(n), 0.0) for n in range(700)))

    assert (500, 700, "699") == (len(shown.logs), shown.logged, shown.logs[-1].text)


def test_foot_tells_what_goes_on(display: LiveDisplay, monkeypatch: pytest.MonkeyPatch):
    """An order is told for a while, what the command does until it ends; else there are hints."""
    now = [display._started]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert "" == heard(display, BrokerReady("x")).foot
    display.order("restart", "a")
    assert "restart a: the broker is not connected" == heard(display, BrokerReady("x")).foot
    now[0] += 60
    assert "" == heard(display, BrokerReady("x")).foot
    assert "the session was ended" == heard(display, SessionEnded("ended")).foot
    display.tell("stopping")
    display.order("stop", "a")
    assert "stopping" == heard(display, BrokerReady("x")).foot


def test_owner_is_asked_before_it_leaves():
    """Leaving ends a project that is supervised here; one that is only looked at goes on."""
    left: list[str] = []
    owner = LiveDisplay("shop", nowhere, is_owner=True)
    guest = LiveDisplay("shop", nowhere, on_left=lambda: left.append("guest"))
    guest.leave()

    assert "stop them?" in (owner.parting or "")
    assert None is guest.parting
    assert ["guest"] == left


def test_endings_have_the_last_figures(display: LiveDisplay):
    """A line a worker, also of those that never were registered."""
    record = host(
        ProcessRecord(name="a", state="exited", exit_code=0),
        ProcessRecord(name="b", state="failed", exit_code=3, error="boom"),
    )

    assert [("a", 0, 0), ("b", 3, 0)] == [
        (one.name, one.exit_code, one.received) for one in display.endings(record)
    ]


def test_display_that_was_never_shown_is_closed(display: LiveDisplay):
    """At once, and twice."""
    display.suspend()
    display.resume()
    display.close()
    display.close()


def stats(*edges: Any) -> list[EdgeStats]:
    """The figures of edges."""
    return [one.stats for one in edges]


def test_rates_of_edges_are_remembered():
    """For a minute, in order; those of an edge that is gone are forgotten; the display's own left out."""
    watch = ChannelWatch(nowhere)
    for rate in range(40):
        watch._take_edges(stats(edge("a", "b", float(rate))))
    (only,) = watch.edges
    assert tuple(float(rate) for rate in range(10, 40)) == only.rates

    own = edge("cli-*", "*", 1.0, type="BusJobsRequestMessage")
    watch._take_edges(stats(edge("c", "d", 1.0), own))
    assert [("c", (1.0,))] == [(one.stats.source, one.rates) for one in watch.edges]
    watch._take_edges(stats(*(edge(f"s{n}", "t", 1.0) for n in range(900))))
    assert 500 == len(watch.edges) == len(watch._rates)


def test_focus_is_handed_on(display: LiveDisplay):
    """Names are the watch's, panes and words the display's."""
    focus = Focus("edges", names=("a", "b"))
    display.begin_at(focus)
    display.want(frozenset({"jobs"}))

    assert ("a", "b") == display._watch.names
    assert {"jobs"} == display._watch.wanted
    assert focus == display._screen.focus
