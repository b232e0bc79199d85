"""Messages that nobody handles, with at most once: how many they were, where, and why."""

import pytest

from support.command import Home, Place, wait_for

pytestmark = pytest.mark.cli

WORKERS = """
import asyncio

from pbus import BaseWorker, BusDataMessage, BusFrameMessage

class Note(BusDataMessage):
    text: str

class Busy(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, BusFrameMessage):
            print("has one", flush=True)
            await asyncio.Event().wait()
"""
TOPOLOGY = """
bus: {backend: redis}
workers:
  busy: {worker: "workers:Busy"}
  bell: {command: [sleep, 600]}
"""


@pytest.fixture(scope="module")
def place(home: Home) -> Place:
    """A worker that never finishes its first message, and a program that has nothing to do with it."""
    place = home.place("unhandled", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
    place.up()
    return place


def test_stop_says_what_fell(place: Place):
    """As a crash does: in the events and in the log."""
    events = place.start("events", "--json", "-n", "2")
    with place.broker() as broker:
        wait_for(lambda: any(b"~states" in channel for channel in broker.pubsub_channels()))
    place.tell("send", "busy", "--text", "x", "--count", "8")
    wait_for(lambda: "has one" in place.logs("busy"))
    place.until(lambda rows: rows["busy"]["queued"] == 7)
    place.tell("stop", "busy", "--timeout", "1")
    changes = events.done().objects

    said = "7 messages waited in it and are lost"
    assert ["stopping", "exited"] == [change["state"] for change in changes]
    assert f"exited with code 0, {said}" == changes[1]["detail"]
    assert said in place.logs("busy")
    assert place.tell("start", "busy").code == 0


@pytest.mark.parametrize("target", ["busy", "--all"])
@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        ("Notes", "{}", "busy: its type is unknown there; did you mean 'Note'?"),
        ("Note", '{"text": 5}', "busy: Expected `str`, got `int` - at `$.text`"),
    ],
)
def test_refused_messages_are_not_sent(
    place: Place, target: str, kind: str, data: str, reason: str
):
    """Where no receiver takes a type that only they can know, it says so, and why."""
    done = place.tell("send", target, "--type", kind, "--data", data)

    assert 1 == done.code
    assert f"error: {kind} was not sent, since it is refused by {reason}\n" == done.err


def test_programs_that_do_not_join_are_named(place: Place):
    """What is sent to one would reach nothing: the error says how to change that."""
    done = place.tell("send", "bell", "--text", "x")

    assert 4 == done.code
    assert "bell is a `command` that takes no part in the bus" in done.err
    assert "`joins: true`" in done.err
