"""State changes as messages."""

import time

import pytest
from msgspec import structs

from pbus.leases import LEASE_S, Lease
from pbus.messages import STATES_ADDRESS
from pbus.process.supervisor.reports.state_events import StateEventQueue
from pbus.process.supervisor_events import Event, Exited, Line, Started, StateChanged
from pbus.running_handlers import RunningHandler

LIMIT_S = 30.0


def checked(sent: StateEventQueue, leases: list[Lease]) -> list[tuple[str, str]]:
    """What a look at these leases finds."""
    return sent.check(leases, lambda _: LIMIT_S)


def told(sent: StateEventQueue) -> list[tuple[str, str, str | None, int | None]]:
    """What was to be told since."""
    return [(one.worker, one.state, one.previous, one.pid) for one in sent.drain()]


def heard(*events: Event) -> StateEventQueue:
    """State events after these events."""
    sent = StateEventQueue("sup", "sample")
    for event in events:
        sent.on_event(event)
    return sent


def lease(incarnation: str, silent_s: float) -> Lease:
    """A worker that renewed its lease so long ago."""
    return Lease(
        name="a", incarnation=incarnation, runner="r", host="h", pid=1,
        beat=time.time() - silent_s,
    )  # fmt: skip


def test_each_change_is_a_message():
    """Each change with the state before and the process it is about; other events are none."""
    sent = heard(
        StateChanged("a", "starting", ""),
        Started("a", 7, "f00"),
        Line("a", "out", "hello", 0.0),
        StateChanged("a", "ready", ""),
        StateChanged("a", "backoff", "killed"),
        Exited("a", 7, -9),
        StateChanged("a", "starting", ""),
        Started("a", 8, "f01"),
    )

    assert [
        ("a", "starting", None, 7),
        ("a", "ready", "starting", 7),
        ("a", "backoff", "ready", 7),
        ("a", "starting", "backoff", 8),
    ] == told(sent)
    assert [] == told(sent)


def test_message_says_whose():
    """A message has target, source, project and reason."""
    (message,) = heard(StateChanged("a", "failed", "no such file")).drain()

    assert (STATES_ADDRESS, "sup", "sample") == (message.target, message.source, message.project)
    assert ("failed", None, "no such file") == (message.state, message.pid, message.detail)


def test_silence_is_told():
    """A worker that does not renew its lease is told once, and once that it does again."""
    sent = heard(Started("a", 7, "f00"), StateChanged("a", "ready", ""))
    sent.drain()
    for silent_s in (1.0, LEASE_S + 1, LEASE_S + 3, 0.1, 0.2):
        checked(sent, [lease("f00-1", silent_s)])

    assert [("a", "unresponsive", "ready", 7), ("a", "ready", "unresponsive", 7)] == told(sent)


def limited() -> StateEventQueue:
    """State events about a ready worker whose handlers have a limit; the first ones are read."""
    sent = StateEventQueue("sup", "sample")
    for event in (Started("a", 7, "f00"), StateChanged("a", "ready", "")):
        sent.on_event(event)
    sent.drain()
    return sent


def busy(age_s: float, name: str = "on_bus_message", silent_s: float = 0.0) -> Lease:
    """A worker whose oldest handler has run for so long."""
    running = RunningHandler(name=name, type="T", source="stt", since=time.time() - age_s)
    return structs.replace(lease("f00-1", silent_s), handler=running)


def details(sent: StateEventQueue) -> list[tuple[str, str]]:
    """States and details of what was to be told since."""
    return [(one.state, one.detail) for one in sent.drain()]


def test_blocked_loop_has_a_begin_and_an_end():
    """It is told once each, with its duration at the end, and the log has the same texts."""
    sent = limited()
    assert [("a", "its event loop is blocked: no heartbeat for 8 s")] == checked(
        sent, [lease("f00-1", 8.0)]
    )
    assert [] == checked(sent, [lease("f00-1", 10.0)])
    ((_, text),) = checked(sent, [lease("f00-1", 0.0)])
    assert "answers again: its event loop was blocked for 8 s" == text
    assert [] == checked(sent, [lease("f00-1", 1.0)])
    assert [
        ("unresponsive", "its event loop is blocked: no heartbeat for 8 s"),
        ("ready", text),
    ] == details(sent)


def test_long_handler_has_a_begin_and_an_end():
    """The oldest handler over the limit is told once; the next one is another event."""
    sent = limited()
    first, second = busy(31.0), busy(35.0, "job load")
    for one in (busy(29.0), first, first, second, second, busy(1.0, "job x")):
        checked(sent, [one])
    checked(sent, [lease("f00-1", 0.0)])
    assert [
        ("ready", "in on_bus_message of T from stt for 31 s"),
        ("ready", "on_bus_message of T from stt has ended after 31 s"),
        ("ready", "in job load of T from stt for 35 s"),
        ("ready", "job load of T from stt has ended after 35 s"),
    ] == details(sent)


def test_same_handler_again_is_another():
    """A handler of the same message type that began later is told for itself."""
    sent = limited()
    checked(sent, [busy(100.0)])
    checked(sent, [busy(40.0)])
    assert [
        "in on_bus_message of T from stt for 100 s",
        "on_bus_message of T from stt has ended after 100 s",
        "in on_bus_message of T from stt for 40 s",
    ] == [detail for _, detail in details(sent)]


@pytest.mark.parametrize(
    "end",
    [
        StateChanged("a", "backoff", "was killed by SIGKILL"),
        StateChanged("a", "failed", "was killed by SIGKILL"),
        StateChanged("a", "exited", "was killed by SIGKILL"),
    ],
)
def test_process_that_ends_meanwhile(end: StateChanged):
    """The end of the process is the end of what hung in it, and says for how long."""
    sent = limited()
    checked(sent, [busy(41.0, silent_s=9.0)])
    sent.on_event(StateChanged("a", "stopping", ""))
    assert [] == checked(sent, [lease("f00-1", 0.0)])  # it is on its way down
    sent.on_event(end)
    sent.on_event(Started("a", 8, "f01"))
    *_, last, started = details(sent)
    assert (
        "was killed by SIGKILL: its event loop was blocked for 9 s;"
        " on_bus_message of T from stt had run for 41 s"
    ) == last[1]
    assert ("starting", "") == started


def test_restart_tells_what_hung():
    """A process that is replaced on command has no end of its own: its successor's start tells."""
    sent = limited()
    checked(sent, [lease("f00-1", 9.0)])
    sent.on_event(StateChanged("a", "stopping", ""))
    sent.on_event(Started("a", 8, "f01"))
    assert ("starting", "its event loop was blocked for 9 s") == details(sent)[-1]


def test_unhealthy_worker_keeps_its_state():
    """One that is only shown as unhealthy is told of, and stays so."""
    sent = limited()
    sent.on_event(StateChanged("a", "unhealthy", "status 503"))
    sent.drain()
    checked(sent, [lease("f00-1", 9.0)])
    checked(sent, [lease("f00-1", 0.0)])
    assert ["unhealthy", "unhealthy"] == [state for state, _ in details(sent)]


@pytest.mark.parametrize("incarnation", ["e00-1", "other"])
def test_other_incarnations_are_ignored(incarnation: str):
    """Leases of earlier incarnations and of other supervisors' workers are ignored."""
    sent = heard(Started("a", 7, "f00"), StateChanged("a", "ready", ""))
    sent.drain()
    checked(sent, [lease(incarnation, LEASE_S + 1)])

    assert [] == told(sent)


def test_oldest_events_are_dropped():
    """While no message can be sent, memory stays bounded."""
    sent = heard(*(StateChanged("a", "backoff", str(number)) for number in range(20_000)))
    details = [message.detail for message in sent.drain()]

    assert (10_000, "19999") == (len(details), details[-1])


def test_faults_of_a_bus_are_told():
    """A task of a worker's bus that ended by an error is an event; each incarnation counts its own."""
    sent = heard(Started("a", 7, "f00"), StateChanged("a", "ready", ""))
    sent.drain()
    for faults in (0, 1, 1, 3):
        checked(sent, [structs.replace(lease("f00-1.000001", 0.0), faults=faults)])
    first, second = sent.drain()
    assert ("a", "ready", "ready") == (first.worker, first.state, first.previous)
    assert "a task of its bus ended by an error" in first.detail
    assert "3 so far" in second.detail

    sent.on_event(Started("a", 8, "f01"))
    sent.on_event(StateChanged("a", "ready", ""))
    sent.drain()
    checked(sent, [structs.replace(lease("f01-1.000001", 0.0), faults=1)])
    assert [("a", "ready", "ready", 8)] == told(sent)
