"""Unhandled messages with at-most-once delivery: how many, where, and why."""

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

WORKERS = """
import asyncio

from pbus import BaseWorker, BusDataMessage, BusFrameMessage, job

class Note(BusDataMessage):
    text: str

class Busy(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, BusFrameMessage):
            print("has one", flush=True)
            await asyncio.Event().wait()

class Caller(BaseWorker):
    @job(name="call")
    async def call(self, request):
        for name, count in request.payload.items():
            for _ in range(count):
                await self.send_bus_message(Note(source=self.name, target=name, text="hello"))
"""
TOPOLOGY = """
bus: {backend: redis}
workers:
  busy: {worker: "workers:Busy"}
  caller: {worker: "workers:Caller"}
  bell: {command: [sleep, 600]}
"""


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A worker that never finishes its first message, and a program that has nothing to do with it."""
    place = cli.place("unhandled", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
    place.up()
    return place


def test_stop_says_what_fell(place: Place):
    """As a crash does: in the answer, in the events and in the log."""
    events = place.start("events", "--json", "-n", "2")
    with place.broker() as broker:
        wait_for(lambda: any(b"~states" in channel for channel in broker.pubsub_channels()))
    place.tell("send", "busy", "--text", "x", "--count", "8")
    wait_for(lambda: "has one" in place.logs("busy"))
    place.until(lambda rows: rows["busy"]["queued"] == 7)
    done = place.tell("stop", "busy", "--timeout", "1")
    changes = events.done().objects

    said = "7 messages waited in it and are lost"
    assert (0, f"busy has stopped (exited with code 0, {said})\n") == (done.code, done.err)
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
    assert f"error: {kind} was not sent, since it is refused by {reason}" in done.err


def test_programs_that_do_not_join_are_named(place: Place):
    """What is sent to one would reach nothing: the error says how to change that."""
    done = place.tell("send", "bell", "--text", "x", "--timeout", "0.1")

    assert 4 == done.code
    assert "bell is a `command` that takes no part in the bus" in done.err
    assert "`joins: true`" in done.err


def test_undelivered_is_counted_for_each(place: Place):
    """In the log, in `ps` and in `tail`: a worker that is down, and a name without a worker."""
    assert place.tell("stop", "busy", "--timeout", "20").code == 0
    tail = place.start("tail", "--json", "--type", "Note", "-n", "8")
    lines = place.start("tail", "--target", "busy", "-n", "1")
    place.until_followed(2)
    place.ask("caller", "call", {"busy": 3, "ghost": 4, "caller": 1})
    shown = {(one["target"], one.get("undelivered", False)) for one in tail.done().objects}

    assert {("busy", True), ("ghost", True), ("caller", False)} == shown
    assert "(reached no process) text=" in lines.done().out
    rows = place.until(lambda rows: rows["busy"]["lost"] == 3)
    assert 0 == rows["caller"]["lost"]
    assert "4 messages to 'ghost' reached no process\n" in place.tell("ps").err
    wait_for(
        lambda: "'ghost' reached no process (4 to it so far)" in "\n".join(place.logs("caller"))
    )
    assert "'busy' reached no process (3 to it so far)" in "\n".join(place.logs("caller"))
    assert place.tell("start", "busy").code == 0
