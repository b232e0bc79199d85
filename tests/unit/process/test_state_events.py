"""State changes as messages."""

import time

import pytest
from msgspec import structs

from pbus.leases import LEASE_S, Lease
from pbus.messages import STATES_ADDRESS
from pbus.process.supervisor.reports.state_events import StateEventQueue
from pbus.process.supervisor_events import Event, Exited, Line, Started, StateChanged


def told(sent: StateEventQueue) -> list[tuple[str, str, str | None, int | None]]:
    """What was to be told since."""
    return [(one.worker, one.state, one.previous, one.pid) for one in sent.drain()]


def heard(*events: Event) -> StateEventQueue:
    """State events after these events."""
    sent = StateEventQueue("sup", "town")
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

    assert (STATES_ADDRESS, "sup", "town") == (message.target, message.source, message.project)
    assert ("failed", None, "no such file") == (message.state, message.pid, message.detail)


def test_silence_is_told():
    """A worker that does not renew its lease is told once, and once that it does again."""
    sent = heard(Started("a", 7, "f00"), StateChanged("a", "ready", ""))
    sent.drain()
    for silent_s in (1.0, LEASE_S + 1, LEASE_S + 3, 0.1, 0.2):
        sent.check([lease("f00-1", silent_s)])

    assert [("a", "unresponsive", "ready", 7), ("a", "ready", "unresponsive", 7)] == told(sent)


@pytest.mark.parametrize("incarnation", ["e00-1", "other"])
def test_other_incarnations_are_ignored(incarnation: str):
    """Leases of earlier incarnations and of other supervisors' workers are ignored."""
    sent = heard(Started("a", 7, "f00"), StateChanged("a", "ready", ""))
    sent.drain()
    sent.check([lease(incarnation, LEASE_S + 1)])

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
        sent.check([structs.replace(lease("f00-1.000001", 0.0), faults=faults)])
    first, second = sent.drain()
    assert ("a", "ready", "ready") == (first.worker, first.state, first.previous)
    assert "a task of its bus ended by an error" in first.detail
    assert "3 so far" in second.detail

    sent.on_event(Started("a", 8, "f01"))
    sent.on_event(StateChanged("a", "ready", ""))
    sent.drain()
    sent.check([structs.replace(lease("f01-1.000001", 0.0), faults=1)])
    assert [("a", "ready", "ready", 8)] == told(sent)
