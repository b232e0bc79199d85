"""Replays against workers that answer, on every bus: order, waits, stand-ins, and the ends."""

import asyncio

import pytest

from pbus.client import Client
from pbus.client.recordings.golden import Outcome, differences
from pbus.client.recordings.replay_plan import planned, roles_of, said_message
from pbus.client.recordings.replayer import Replayer, ReplayPace
from pbus.errors import JobError
from pbus.runner import WorkerRunner
from support.recorder import Recorder
from support.recordings import ReplayedNote, note, recorded, request, response
from support.waiting import PATIENCE_S, finishes, run, until

SOON = ReplayPace(speed=0.0, settle_s=PATIENCE_S)


class Answerer(Recorder):
    """Answers each note with its text in capitals, once it may."""

    def __init__(self, name, *, silent=()):
        super().__init__(name)
        self.silent = silent
        self.may = asyncio.Event()
        self.may.set()

    async def handle(self, message):
        if isinstance(message, ReplayedNote) and message.text not in self.silent:
            await self.may.wait()
            text = message.text.upper()
            await self.send_bus_message(
                ReplayedNote(source=self.name, target=message.source, text=text)
            )


class Asker(Recorder):
    """Asks "tools" about each note, and sends on what it says."""

    async def handle(self, message):
        if isinstance(message, ReplayedNote):
            try:
                async with self.job("tools", name="look", payload={"n": message.text}) as asked:
                    pass
                text = asked.response["found"]
            except JobError as error:
                text = f"failed: {error}"
            await self.send_bus_message(
                ReplayedNote(source=self.name, target=message.source, text=text)
            )


def said(*messages):
    return [said_message(recorded(message)) for message in messages]


def replayed(make_any_bus, worker, messages, body, *, stand_ins=("caller",)):
    """Run a body with a replayer of messages to one worker, its plan, and the worker."""

    async def main():
        runner = WorkerRunner(bus=make_any_bus(), handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run(auto_end=False), name="runner of a test")
        await runner.registry.wait_ready(worker.name)
        roles = roles_of(messages, [worker.name], only=None, stand_ins=stand_ins)
        async with asyncio.timeout(PATIENCE_S), Client(make_any_bus()) as client:
            await body(Replayer(client, messages, roles), planned(messages, roles, only=None))
        await runner.cancel("the test is over")
        await finishes(running)

    run(main())


def texts(worker):
    return [one.text for one in worker.received if isinstance(one, ReplayedNote)]


def call(*words):
    """A caller says words, and is answered after each."""
    return said(*[
        one
        for at, word in enumerate(words)
        for one in (
            note(10.0 * at, "caller", "agent", word),
            note(10.0 * at + 5, "agent", "caller", word.upper()),
        )
    ])


def test_sender_waits_for_the_answers_that_it_had(make_any_bus):
    """Without pauses, too: the second word is said after the answer to the first."""
    agent = Answerer("agent")
    agent.may.clear()
    messages = call("one", "two", "three")

    async def body(replayer, plan):
        replaying = asyncio.create_task(replayer.run(plan, SOON, messages))
        await until(lambda: 1 == replayer.sent)
        for number in (1, 2, 3):
            await until(lambda number=number: number == replayer.sent)
            assert number - 1 == len(texts(agent))
            agent.may.set()
            await asyncio.sleep(0)
            await until(lambda number=number: number == len(texts(agent)))
            if number < 3:
                agent.may.clear()
        await replaying
        expected = Outcome(messages, {"agent"})
        assert [] == differences(expected, replayer.outcome)
        assert (3, 0) == (replayer.sent, replayer.missed)

    replayed(make_any_bus, agent, messages, body)


def test_answer_that_does_not_come_is_waited_for_once(make_any_bus):
    """Then its sender goes on, and what is missing is told."""
    agent = Answerer("agent", silent={"one"})
    messages = call("one", "two", "three")

    async def body(replayer, plan):
        await replayer.run(plan, ReplayPace(speed=0.0, settle_s=0.05), messages)
        found = differences(Outcome(messages, {"agent"}), replayer.outcome)
        assert 3 == replayer.sent
        assert {"missing", "changed"} == {one.kind for one in found}

    replayed(make_any_bus, agent, messages, body)
    assert ["one", "two", "three"] == texts(agent)


def test_step_waits_for_nothing_else(make_any_bus):
    """Each message is sent when it may be; what is raised before one ends the replay."""
    agent = Answerer("agent", silent={"one", "two"})
    messages = call("one", "two", "three")
    seen = []

    async def before_each(one):
        seen.append(one.fields["text"])
        if len(seen) == 3:
            raise EOFError

    async def body(replayer, plan):
        with pytest.raises(EOFError):
            await replayer.run(plan, ReplayPace(before_each=before_each), messages)
        assert 2 == replayer.sent
        await until(lambda: ["one", "two"] == texts(agent))

    replayed(make_any_bus, agent, messages, body)
    assert ["one", "two", "three"] == seen


def test_stand_in_answers_jobs_as_recorded(make_any_bus):
    """By what they ask for, whatever the order; one that was never asked is an error, at once."""
    messages = said(
        note(1.0, "caller", "agent", "a"),
        request(2.0, "agent", "tools", "j1", {"n": "a"}),
        response(3.0, "tools", "agent", "j1", found="about a"),
        note(4.0, "agent", "caller", "about a"),
        note(5.0, "caller", "agent", "b"),
        request(6.0, "agent", "tools", "j2", {"n": "b"}),
        response(7.0, "tools", "agent", "j2", found="about b"),
        note(8.0, "agent", "caller", "about b"),
    )
    swapped = said(
        *(note(at, "caller", "agent", text) for at, text in ((1.0, "b"), (5.0, "a"), (6.0, "c")))
    )
    heard = []

    async def body(replayer, plan):
        del plan
        awaited = [*messages, *said(note(9.0, "agent", "caller"))]
        await replayer.run(swapped, ReplayPace(speed=0.0, settle_s=PATIENCE_S), awaited)
        heard.extend(answers(replayer))

    def answers(replayer):
        messages = [one for name in ("caller",) for one in replayer.outcome.fields(
            ("agent", name, "ReplayedNote", "")
        )]  # fmt: skip
        return [one["text"] for one in messages]

    replayed(make_any_bus, Asker("agent"), messages, body, stand_ins=("caller", "tools"))
    assert ["about b", "about a"] == heard[:2]
    assert heard[2].startswith("failed: ")
    assert "tools" in heard[2]
