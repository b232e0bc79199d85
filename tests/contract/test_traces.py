"""Traces on every bus: what is sent because of a message belongs to its trace, without anybody's doing."""

import asyncio

from pbus import BaseWorker, in_trace, job
from pbus.bus import BusSubscriber
from pbus.client import Client
from pbus.jobs import JobParams
from pbus.messages import BusDataMessage, BusJobMessage, BusOpaqueMessage
from pbus.trace_context import is_traceparent, parent_span_id, span_id_of
from support.job_helpers import hosted
from support.waiting import PATIENCE_S, happens, run, until


class Spoken(BusDataMessage):
    """Something that is said, and passed on."""

    text: str


class TraceListener(BaseWorker):
    """Keeps all that it hears."""

    takes_opaque = True

    def __init__(self, name):
        super().__init__(name)
        self.heard = []
        self.jobs = []

    async def on_bus_message(self, message):
        if isinstance(message, (Spoken, BusOpaqueMessage)):
            self.heard.append(message)
        if isinstance(message, BusJobMessage):
            self.jobs.append(message)

    def trace_of(self, text):
        return next(one.trace_id for one in self.heard if getattr(one, "text", None) == text)

    def has(self, *texts):
        return set(texts) <= {getattr(one, "text", None) for one in self.heard}

    async def say(self, target, text):
        message = Spoken(source=self.name, target=target, text=text)
        await self.send_bus_message(message)
        return message


class Relay(TraceListener):
    """Passes on what it hears: at once, by a task, by an event handler, and by a job."""

    def __init__(self, name="relay"):
        super().__init__(name)
        self.add_event_handler("on_bus_message", self.on_event)

    async def on_bus_message(self, message):
        await super().on_bus_message(message)
        if isinstance(message, Spoken):
            await self.say("end", f"{message.text} at once")
            self.create_task(self.later(message.text))
            await self.job("end", "echo", {"text": message.text})
            await self.say("end", f"{message.text} after a job")
            await self.bus.send_raw("NeverKnown", "end", {"n": 1}, source=self.name)

    async def later(self, text):
        await asyncio.sleep(0)
        await self.say("end", f"{text} by a task")

    @staticmethod
    async def on_event(worker, message):
        if isinstance(message, Spoken):
            await worker.say("end", f"{message.text} by an event")


class End(TraceListener):
    """Answers jobs, and says so to the beginning."""

    def __init__(self, name="end"):
        super().__init__(name)
        self.gate = asyncio.Event()
        self.requests = []

    @job(name="echo")
    async def echo(self, request):
        self.requests.append(request)
        await self.send_job_update(request.job_id, {"half": True})
        await self.say("begin", f"echo of {request.payload['text']}")
        return request.payload

    @job(name="one", sequential=True)
    async def one_at_a_time(self, request):
        self.requests.append(request)
        await self.gate.wait()
        await self.say("begin", f"one of {request.payload['text']}")


WAYS = ("at once", "by a task", "by an event", "after a job")


def test_conversation_is_one_trace(make_any_bus, any_backend):
    """Three workers in three processes, handlers, tasks, event handlers and jobs; two conversations at once."""

    async def main():
        begin, relay, end = TraceListener("begin"), Relay(), End()
        encoding = "json" if any_backend == "pgmq" else "msgpack"  # JSON has the other tests
        groups = ([begin], [relay], [end])
        async with hosted(lambda: make_any_bus(encoding=encoding), *groups):
            first, second = await begin.say("relay", "a"), await begin.say("relay", "b")
            assert first.trace_id != second.trace_id
            wanted = [f"{text} {way}" for text in "ab" for way in WAYS]
            await until(lambda: end.has(*wanted) and begin.has("echo of a", "echo of b"))
            for sent in (first, second):
                texts = [f"{sent.text} {way}" for way in WAYS]
                assert {sent.trace_id} == {end.trace_of(text) for text in texts}
                assert sent.trace_id == begin.trace_of(f"echo of {sent.text}")
                assert sent.trace_id == relay.trace_of(sent.text)
            traces = {first.trace_id, second.trace_id}
            assert traces == {one.trace_id for one in end.requests}
            await until(lambda: len([one for one in end.heard if one.is_opaque]) == 2)
            assert traces == {one.trace_id for one in end.heard if one.is_opaque}
            at_once = next(one for one in end.heard if getattr(one, "text", "") == "a at once")
            assert span_id_of(first) == parent_span_id(at_once)

    run(main())


def test_all_messages_of_a_job_are_one_trace(make_any_bus):
    """Of a job that is asked outside of handlers, too: request, update, answer, cancel; of a group as well."""

    async def main():
        begin, end, other = TraceListener("begin"), End(), End("other")
        async with hosted(make_any_bus, [begin], [end, other]):
            async with begin.job("end", "echo", {"text": "x"}) as asked:
                assert ["update"] == [event.type async for event in asked]
            await until(lambda: {"BusJobUpdateMessage", "BusJobResponseMessage"} <= kinds(begin))
            await until(lambda: begin.has("echo of x"))
            (request,) = end.requests
            own = [one for one in begin.jobs if one.job_id == request.job_id]
            assert {request.trace_id} == {one.trace_id for one in own} | {
                begin.trace_of("echo of x")
            }
            await begin.job_group("end", "other", name="echo", payload={"text": "y"})
            assert end.requests[-1].trace_id == other.requests[-1].trace_id != request.trace_id
            asking = asyncio.create_task(asked_for(begin, JobParams(name="one")))
            await until(lambda: len(end.requests) == 3)
            asking.cancel()
            await until(lambda: "BusJobCancelMessage" in kinds(end))
            cancel = next(one for one in end.jobs if type(one).__name__ == "BusJobCancelMessage")
            assert cancel.trace_id == end.requests[2].trace_id

    def kinds(worker):
        return {type(one).__name__ for one in worker.jobs}

    run(main())


def test_job_that_waited_keeps_its_trace(make_any_bus):
    """It is started by the end of another one, whose trace it must not take."""

    async def main():
        begin, end = TraceListener("begin"), End()
        async with hosted(make_any_bus, [begin], [end]):
            params = [JobParams(name="one", payload={"text": text}) for text in "abc"]
            asked = [asyncio.create_task(asked_for(begin, one)) for one in params]
            await until(lambda: end.requests)
            end.gate.set()
            await asyncio.gather(*asked)
            await until(lambda: begin.has("one of a", "one of b", "one of c"))
            assert [one.trace_id for one in end.requests] == [
                begin.trace_of(f"one of {one.payload['text']}") for one in end.requests
            ]
            assert 3 == len({one.trace_id for one in end.requests})

    run(main())


async def asked_for(worker, params):
    return await worker.job("end", params=params)


class TraceEcho(BusSubscriber):
    """No worker: answers what it hears, by the bus alone."""

    def __init__(self, bus):
        self.name = "echo"
        self.bus = bus

    def accepts_bus_message(self, message):
        return isinstance(message, Spoken)

    async def on_bus_message(self, message):
        answer = Spoken(source=self.name, target="begin", text=f"{message.text} again")
        await self.bus.send(answer)


def test_client_and_subscriber_belong_to_traces(make_any_bus):
    """A block begins a trace or continues one, as of a request by HTTP; a subscriber answers within it."""

    async def main():
        begin = TraceListener("begin")
        async with (
            hosted(make_any_bus, [begin]),
            make_any_bus() as bus,
            Client(make_any_bus()) as client,
        ):
            await bus.subscribe(TraceEcho(bus))
            theirs = f"00-{'5' * 32}-{'6' * 16}-01"
            with in_trace(theirs) as trace_id:
                for text in ("a", "b"):
                    await client.send_bus_message(spoken(text))
                await client.send("begin", "Spoken", {"text": "from a client"})
            await client.send_bus_message(spoken("c"))
            with in_trace("00-nonsense") as own:
                await client.send_bus_message(spoken("d"))
            await until(
                lambda: begin.has("a again", "b again", "c again", "d again", "from a client")
            )
            found = [begin.trace_of(f"{text} again") for text in "abcd"]
            assert ["5" * 32, "5" * 32, own] == [found[0], found[1], found[3]]
            assert (trace_id, 3) == ("5" * 32, len(set(found)))
            told = next(one for one in begin.heard if one.text == "from a client")
            assert (theirs, trace_id) == (told.traceparent, told.trace_id)
            assert all(is_traceparent(one.traceparent) for one in begin.heard)

    def spoken(text):
        return Spoken(source="web", target="echo", text=text)

    run(main())


def test_child_begins_no_trace_of_its_parent(make_bus):
    """A child that is added in a handler, or in a block, is caused by its own messages alone."""

    async def main():
        begin, parent = TraceListener("begin"), Nesting()
        async with hosted(make_bus, [begin], [parent]):
            first = await begin.say("parent", "child")
            await happens(parent.has_child)
            second = await begin.say("parent", "to child")
            await until(lambda: begin.has("to child by a child"))
            assert second.trace_id == begin.trace_of("to child by a child") != first.trace_id

    run(main())


class Nesting(TraceListener):
    """Adds a child while it handles a message, and passes others on to it."""

    def __init__(self):
        super().__init__("parent")
        self.has_child = asyncio.Event()

    async def on_bus_message(self, message):
        if not isinstance(message, Spoken):
            return
        if message.text == "child":
            with in_trace():
                await self.add_workers(Child("child"))
            await self.registry.wait_ready("child", PATIENCE_S)
            self.has_child.set()
        else:
            await self.say("child", message.text)


class Child(TraceListener):
    """Says to the beginning what it hears."""

    async def on_bus_message(self, message):
        if isinstance(message, Spoken):
            await self.say("begin", f"{message.text} by a child")
