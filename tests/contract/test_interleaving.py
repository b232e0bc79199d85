"""One data message at a time: what comes in while a handler waits for a job of its own."""

import asyncio
import contextlib
from collections import defaultdict

import pytest

from pbus.bus.local import mailbox
from pbus.codec import type_of
from pbus.errors import JobWorkerLostError
from pbus.handlers import job
from pbus.jobs import JobGroupParams
from pbus.jobs.requester import lost_workers
from pbus.messages import (
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusSystemMessage,
    Lane,
)
from pbus.workers import activation
from pbus.workers.base_worker import BaseWorker
from support.job_helpers import Note, ask, hosted
from support.waiting import PATIENCE_S, happens, run, until


class OrderAlarm(BusSystemMessage):
    """Something urgent."""

    number: int = 0


class Speaker(BaseWorker):
    """Has each note read out by others, piece by piece, and writes down when it began and ended."""

    def __init__(self, name="speaker", *, asks="reader", **options):
        super().__init__(name, **options)
        self.asks = asks
        self.log = []

    async def on_bus_message(self, message):
        if not isinstance(message, Note | OrderAlarm):
            return
        entry = message.number
        self.log.append(("begin", entry))
        async with self.job(self.asks, name="read", payload={"number": entry}) as reading:
            async for event in reading:
                self.log.append((event.type, entry))
        self.log.append(("end", entry))

    @job(name="greet")
    async def greet(self, request):
        self.log.append(("greet", request.payload["number"]))
        return {}

    def done(self):
        return [entry for what, entry in self.log if what == "end"]


class Reader(BaseWorker):
    """Reads out; before that it asks a given worker, and waits for its gate if it has one."""

    def __init__(self, name="reader", *, asks=None, job_name="greet", gated=False):
        super().__init__(name)
        self.asks = asks
        self.job_name = job_name
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        if not gated:
            self.gate.set()

    @job(name="read")
    async def read(self, request: BusJobRequestMessage) -> None:
        number = request.payload["number"]
        self.begun.set()
        await self.gate.wait()
        if self.asks is not None:
            await ask(self, self.asks, self.job_name, payload={"number": number})
        await self.send_job_stream_start(request.job_id, {})
        for _ in range(2):
            await self.send_job_stream_data(request.job_id, {})
            await asyncio.sleep(0)
        await self.send_job_stream_end(request.job_id, {})


READ = ["begin", "stream_start", "stream_data", "stream_data", "stream_end", "end"]


def in_order(count, steps=READ):
    """A log in which one note after the other was read."""
    return [(step, number) for number in range(count) for step in steps]


async def send_notes(worker, target, count, kind=Note):
    for number in range(count):
        await worker.send_bus_message(kind(source=worker.name, target=target, number=number))


def test_conversations_do_not_mix(make_any_bus):
    """Three messages whose handler streams a job were handled at once, their pieces mixed."""

    async def main():
        speaker, sender = Speaker(), BaseWorker("sender")
        async with hosted(make_any_bus, [speaker, sender], [Reader()]):
            await send_notes(sender, "speaker", 3)
            await until(lambda: len(speaker.done()) == 3)
        assert in_order(3) == speaker.log

    run(main())


def test_interleaving_can_be_chosen(make_any_bus):
    """With interleave=True the next message is handled while the one before waits for its job."""

    async def main():
        speaker, sender, reader = Speaker(interleave=True), BaseWorker("sender"), Reader(gated=True)
        async with hosted(make_any_bus, [speaker, sender], [reader]):
            await send_notes(sender, "speaker", 3)
            await until(lambda: len(speaker.log) == 3)
            assert [("begin", number) for number in range(3)] == speaker.log
            reader.gate.set()
            await until(lambda: len(speaker.done()) == 3)

    run(main())


class Both(Speaker, Reader):
    """Reads out what it is asked to, and has others read its own notes."""

    def __init__(self, name, asks):
        Speaker.__init__(self, name, asks=asks)
        self.job_name = "greet"
        self.gate, self.begun = asyncio.Event(), asyncio.Event()
        self.gate.set()

    @job(name="read")
    async def read(self, request):
        payload = request.payload
        await ask(self, self.asks, "greet", payload=payload)
        return payload


class Grouping(Speaker):
    """Has two read at once."""

    async def on_bus_message(self, message):
        if isinstance(message, Note):
            payload = {"number": message.number}
            self.log.append(("begin", message.number))
            async with self.job_group("reader", "third", name="read", payload=payload):
                pass
            self.log.append(("end", message.number))


CIRCLES = {
    "back": lambda: (Speaker(), [Reader(asks="speaker")]),
    "circle": lambda: (
        Speaker(),
        [Reader(asks="third", job_name="read"), Reader("third", asks="speaker")],
    ),
    "self": lambda: (Both("speaker", "speaker"), []),
    "group": lambda: (
        Grouping(),
        [Reader(asks="speaker"), Reader("third", asks="speaker")],
    ),
    "both": lambda: (Both("speaker", "reader"), [Both("reader", "speaker")]),
}


@pytest.mark.parametrize("way", CIRCLES)
def test_circles_do_not_block(make_any_bus, way):
    """Workers whose handlers wait for each other's jobs, or their own, go on: in order."""

    async def main():
        sender = BaseWorker("sender")
        speaker, others = CIRCLES[way]()
        speakers = [one for one in (speaker, *others) if isinstance(one, Speaker)]
        async with hosted(make_any_bus, [speaker, sender], others):
            for one in speakers:
                await send_notes(sender, one.name, 3)
            await until(lambda: all(len(one.done()) == 3 for one in speakers))
        for one in speakers:
            noted = [entry for entry in one.log if entry[0] in {"begin", "end"}]
            assert in_order(3, ["begin", "end"]) == noted

    run(main())


def test_waiting_for_requested_jobs(make_any_bus):
    """A handler may wait for the group it asked for, or for what a hook tells of its job."""

    class Patient(Speaker):
        def __init__(self):
            super().__init__()
            self.ends = defaultdict(asyncio.Event)

        async def on_job_completed(self, result):
            self.ends[result.job_id].set()

        async def on_bus_message(self, message):
            if not isinstance(message, Note):
                return
            self.log.append(("begin", message.number))
            params = JobGroupParams(name="read", payload={"number": message.number})
            group = await self.create_job_group_and_request_job(["reader"], params=params)
            await group.wait()
            job_id = await self.request_job("reader", name="read", payload={"number": 0})
            await self.ends[job_id].wait()
            self.log.append(("end", message.number))

    async def main():
        patient, sender = Patient(), BaseWorker("sender")
        async with hosted(make_any_bus, [patient, sender], [Reader()]):
            await send_notes(sender, "speaker", 2)
            await until(lambda: len(patient.done()) == 2)
        assert in_order(2, ["begin", "end"]) == patient.log

    run(main())


def test_waiting_for_a_worker_to_be_ready(make_any_bus):
    """A worker whose start() asks one that waits for it becomes ready; data waits meanwhile."""

    class Starter(Reader):
        async def start(self):
            await ask(self, "speaker", "greet", payload={"number": 7})

    class Waiting(Speaker):
        async def on_bus_message(self, message):
            if isinstance(message, Note) and message.number == 0:
                self.log.append(("begin", 0))
                await self.activate_worker("reader")
                self.log.append(("end", 0))
            else:
                await super().on_bus_message(message)

    async def main():
        speaker, sender = Waiting(), BaseWorker("sender")
        async with hosted(make_any_bus, [speaker, sender], []) as (_, runner):
            await send_notes(sender, "speaker", 2)
            await until(lambda: speaker.log)
            await runner.add_workers(Starter())
            await until(lambda: speaker.done() == [0, 1])
        greeted = speaker.log.index(("greet", 7))
        assert [("begin", 0), ("end", 0)] == [speaker.log[0], speaker.log[greeted + 1]]

    run(main())


@pytest.mark.parametrize("hook", ["start", "on_activated", "activation", "on_deactivated"])
def test_hooks_keep_the_lane(make_any_bus, hook):
    """Data waits for a hook that waits for its job, also for one before the worker has begun."""

    class Hooked(Speaker):
        async def prepare(self, what):
            if what == hook:
                self.log.append(("begin", hook))
                await ask(self, "reader", "read", payload={"number": 0})
                self.log.append(("end", hook))

        async def start(self):
            await self.prepare("start")

        async def on_activated(self, args):
            await self.prepare("activation" if args else "on_activated")

        async def on_deactivated(self):
            await self.prepare("on_deactivated")

    async def main():
        speaker, sender = Hooked(), BaseWorker("sender")
        reader = Reader(asks="speaker", gated=True)
        async with hosted(make_any_bus, [sender], [reader]) as (_, runner):
            if hook == "start":
                reader.asks = None  # workers that have not begun are not asked
            await runner.add_workers(speaker)
            if hook.startswith("on_de") or hook == "activation":
                await sender.registry.wait_ready("speaker", PATIENCE_S)
                if hook == "on_deactivated":
                    await sender.deactivate_worker("speaker")
                    reader.asks = None  # inactive workers are not asked
                await sender.activate_worker("speaker", args={"n": 1})
            await happens(reader.begun)
            await send_notes(sender, "speaker", 2)
            speaker.asks = "other"
            await runner.add_workers(Reader("other"))
            reader.gate.set()
            await until(lambda: speaker.done() == [hook, 0, 1])
        noted = [entry for entry in speaker.log if entry[0] != "greet"]
        assert [("begin", hook), ("end", hook), *in_order(2)] == noted

    run(main())


@pytest.mark.parametrize("asks", ["first", "late"])
def test_long_activation_lets_messages_in(make_any_bus, monkeypatch, asks):
    """A hook that never ends and uses jobs holds no message up for longer than its patience."""
    monkeypatch.setattr(activation, "HOOK_TIMEOUT_S", 0.05)

    class Busy(Speaker):
        async def on_activated(self, args):
            if asks == "late":  # when messages are handled beside it
                await until(lambda: self.done() == [0])
                await ask(self, "silent", "read", payload={"number": 0}, timeout=None)
            await ask(self, "reader", "read", payload={"number": 0})
            await asyncio.Event().wait()

    async def main():
        speaker, sender = Busy(), BaseWorker("sender")
        silent = Reader("silent", gated=True)
        async with hosted(make_any_bus, [sender], [Reader(), silent]) as (_, runner):
            await runner.add_workers(speaker)
            await sender.registry.wait_ready("speaker", PATIENCE_S)
            await send_notes(sender, "speaker", 1)
            await until(lambda: speaker.done() == [0])
            if asks == "late":
                await happens(silent.begun)
            await send_notes(sender, "speaker", 1)
            await until(lambda: speaker.done() == [0, 0])

    run(main())


def held_types(bus, name):
    """The types of what is held back from a worker; news of workers may be among them at any time."""
    lane = bus._router._mailboxes[name]._lanes[Lane.DATA]
    bodies = [body for (body, _), _ in lane._held or ()]  # None before the first
    return [type_of(body) if isinstance(body, bytes) else type(body) for body in bodies]


def test_end_comes_behind_what_is_held(make_any_bus):
    """A worker that is to end first handles what waits behind a handler that waits."""

    async def main():
        speaker, sender, reader = Speaker(), BaseWorker("sender"), Reader(gated=True)
        async with hosted(make_any_bus, [sender, speaker], [reader]) as (runner, _):
            await send_notes(sender, "speaker", 3)
            await happens(reader.begun)
            # Where messages are kept, the end is not, and may come before what is not there yet.
            await until(lambda: held_types(runner.bus, "speaker").count(Note) == 2)
            removing = asyncio.create_task(runner.remove_workers("speaker"))
            await until(lambda: BusEndWorkerMessage in held_types(runner.bus, "speaker"))
            reader.gate.set()
            await removing
        assert in_order(3) == speaker.log

    run(main())


def test_urgent_comes_beside(make_any_bus):
    """Urgent messages, a cancel above all, do not wait for a handler that waits; among them is order."""

    async def main():
        speaker, sender, reader = Speaker(), BaseWorker("sender"), Reader(gated=True)
        async with hosted(make_any_bus, [sender, speaker], [reader]) as (runner, _):
            await send_notes(sender, "speaker", 1)
            await happens(reader.begun)
            await send_notes(sender, "speaker", 3, OrderAlarm)
            await until(lambda: len(speaker.log) == 2)
            assert [("begin", 0), ("begin", 0)] == speaker.log
            reader.gate.set()
            await until(lambda: len(speaker.done()) == 4)
            alarms = [entry for entry in speaker.log if entry[1] > 0]
            assert [(step, number) for number in (1, 2) for step in READ] == alarms
            reader.gate.clear()
            await send_notes(sender, "speaker", 2)
            await until(lambda: runner.bus.stats("speaker").held)
            await sender.send_bus_message(BusCancelWorkerMessage(source="sender", target="speaker"))
            await until(lambda: runner.get_worker("speaker") is None)

    run(main())


FLOOD = 1_500  # more than a process takes from a mailbox before it settles some


class Page(Note):
    """A note with text."""

    text: str = ""


def test_answers_pass_a_flood(make_any_bus, monkeypatch):
    """What a handler waits for comes in, however much data waits: from the same sender, too."""
    monkeypatch.setattr(mailbox, "DATA_CAPACITY", 100)

    class Flooding(Reader):
        @job(name="read")
        async def read(self, request):
            for number in range(1, FLOOD + 1):
                page = Page(source=self.name, target="speaker", number=number, text="x" * 2_000)
                flood.append(asyncio.create_task(self.send_bus_message(page)))
            self.begun.set()
            await asyncio.sleep(0)
            return {"read": True}

    class Counting(Speaker):
        async def on_bus_message(self, message):
            if isinstance(message, Page):
                self.log.append(("page", message.number))
            elif isinstance(message, Note):
                await ask(self, "reader", "read", payload={"number": message.number})
                self.log.append(("answered", 0))

    flood = []

    async def main():
        speaker, sender, reader = Counting(), BaseWorker("sender"), Flooding()
        async with hosted(make_any_bus, [speaker, sender], [reader]):
            await send_notes(sender, "speaker", 1)
            await until(lambda: len(speaker.log) == FLOOD + 1)
            await asyncio.gather(*flood)
        assert [("answered", 0), *(("page", number + 1) for number in range(FLOOD))] == speaker.log

    run(main())


def test_loss_is_noticed_at_once(make_forgetting_bus, monkeypatch):
    """Data that is held back does not delay the news that a job's worker was lost."""
    monkeypatch.setattr(lost_workers, "CATCH_UP_ROUNDS", 1_000_000)

    class Sure(Speaker):
        async def on_bus_message(self, message):
            with contextlib.suppress(JobWorkerLostError):
                await super().on_bus_message(message)
                return
            self.log.append(("lost", message.number))

    async def main():
        speaker, sender, reader = Sure(), BaseWorker("sender"), Reader(gated=True)
        async with hosted(make_forgetting_bus, [speaker, sender], [reader]) as (runner, other):
            await send_notes(sender, "speaker", 2)
            await happens(reader.begun)
            await until(lambda: runner.bus.stats("speaker").held)
            await other.remove_workers("reader", timeout=0.01)
            await until(lambda: ("lost", 0) in speaker.log)
            await other.add_workers(Reader())
            # Asked before it was known here that the reader is gone, the second is lost, too.
            await until(lambda: speaker.done() == [1] or ("lost", 1) in speaker.log)

    run(main())
