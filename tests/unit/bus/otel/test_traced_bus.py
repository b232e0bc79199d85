"""Spans of messages on a bus in memory: ids, parents, errors, hostile texts."""

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pbus import BaseWorker, WorkerRunner, in_trace
from pbus.bus import AsyncQueueBus, BusSubscriber
from pbus.bus.local.causes import ask_outside, new_traceparent, trace_environ
from pbus.bus.otel.message_spans import MessageSpans, PlannedIds, current_traceparent
from pbus.bus.otel.traced_bus import TracedBus, fail
from pbus.errors import BatchError, BusFullError, MessageTooLargeError
from pbus.messages import BusDataMessage, BusWorkerRegistryMessage
from pbus.trace_context import in_trace_of, parent_span_id, span_id_of, trace_id_of
from support.waiting import run, until


class Spanned(BusDataMessage):
    """Something that is passed on."""

    text: str = ""


class Passer(BusSubscriber):
    """Passes messages on, or fails."""

    def __init__(self, name, bus, to=None):
        self.name = name
        self.bus = bus
        self.to = to
        self.heard = []
        self.current = []

    async def on_bus_message(self, message):
        if not isinstance(message, Spanned):
            return
        self.heard.append(message)
        self.current.append(current_traceparent())
        if message.text == "fail":
            raise KeyError("no such thing")
        if self.to is not None:
            await asyncio.sleep(0)
            await self.bus.send(Spanned(source=self.name, target=self.to, text=message.text))


class Traced:
    """A bus in memory with two subscribers, and its spans."""

    def __init__(self, bus=None):
        self.exporter = InMemorySpanExporter()
        ids = PlannedIds()
        self.provider = TracerProvider(id_generator=ids)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.reader = InMemoryMetricReader()
        meters = MeterProvider(metric_readers=[self.reader])
        self.bus = bus or AsyncQueueBus(channel="traced")
        TracedBus(self.bus, MessageSpans(self.tracer, ids), meters.get_meter("pbus"))
        self.first = Passer("first", self.bus, to="second")
        self.second = Passer("second", self.bus)

    async def __aenter__(self):
        await self.bus.start()
        await self.bus.subscribe(self.first)
        await self.bus.subscribe(self.second)
        return self

    async def __aexit__(self, *exc):
        await self.bus.stop()

    def spans(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    async def span(self, name):
        await until(lambda: self.spans(name))
        (span,) = self.spans(name)
        return span


@pytest.fixture(autouse=True)
def nothing_outside():
    """Other tests ask for no spans."""
    yield
    ask_outside(lambda: None)


def hex_of(span):
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent_of(span):
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def test_spans_follow_the_ids_of_messages():
    """A handler's span is what its messages name as their parent, and is current in it."""

    async def main():
        async with Traced() as traced:
            await traced.bus.send(Spanned(source="test", target="first"))
            last = await traced.span("process second")
            sent, handled = await traced.span("send first"), await traced.span("process first")
            passed_on = await traced.span("send second")
        (message,), (answer,) = traced.first.heard, traced.second.heard

        assert (trace_id_of(message), span_id_of(message)) == hex_of(handled)
        assert span_id_of(message) == parent_span_id(answer) == parent_of(passed_on)
        assert parent_of(sent) is None
        assert parent_of(handled) == hex_of(sent)[1]
        assert parent_of(last) == hex_of(passed_on)[1]
        assert {trace_id_of(message)} == {
            hex_of(one)[0] for one in (sent, handled, passed_on, last)
        }
        assert traced.first.current == ["00-{}-{}-01".format(*hex_of(handled))]

    run(main())


class Storing(AsyncQueueBus):
    """Stores what goes to `first`; the test tells with which outcome."""

    def __init__(self):
        super().__init__(channel="traced")
        self.stored = []

    def enqueue(self, message, receipt):
        if message.target != "first":
            return False
        if getattr(message, "text", "") == "too large":
            raise MessageTooLargeError("Spanned", 2, 1)
        receipt.size = 1
        self.stored.append((message, receipt))
        return True


def test_what_a_worker_sends_has_a_span():
    """A worker sends without a coroutine of the bus where it can: it has its one span all the same."""

    async def main():
        async with Traced() as traced:
            worker = BaseWorker("worker")
            runner = WorkerRunner(bus=traced.bus, handle_sigint=False)
            await runner.add_workers(worker)
            message = Spanned(source="worker", target="first", text="by a worker")
            await worker.send_bus_message(message)
            sending = await traced.span("send first")
            await traced.span("process first")
            assert (1, hex_of(sending)[0]) == (worker.sent, trace_id_of(message))

    run(main())


def test_messages_of_a_batch_have_spans():
    """One each, which ends with the outcome; what was refused is an error; nothing has two."""

    async def main():
        async with Traced(Storing()) as traced:
            texts = ["stored", "too large", "refused"]
            batch = [Spanned(source="test", target="first", text=text) for text in texts]
            batch += [
                Spanned(source="test", target="second"),
                BusWorkerRegistryMessage(source="t", target="first", runner="r", workers=[]),
            ]
            sending = asyncio.create_task(traced.bus.send_all(batch))
            await until(lambda: len(traced.bus.stored) == 3)
            (too_large,) = traced.spans("send first")
            traced.bus.stored[0][1].set_result(1)
            traced.bus.stored[1][1].set_exception(BusFullError("'first'", 1.0, "no room"))
            traced.bus.stored[2][1].set_result(1)
            with pytest.raises(BatchError) as caught:
                await sending
            assert [1, 2] == list(caught.value.failures)
            await traced.span("send second")
            ok, refused = traced.spans("send first")[1:]

        assert [None, "MessageTooLargeError", "BusFullError"] == [
            one.attributes.get("error.type") for one in (ok, too_large, refused)
        ]
        assert trace_id_of(traced.bus.stored[0][0]) == hex_of(ok)[0]

    run(main())


def test_each_receiver_of_a_broadcast_has_a_span():
    """Below that of sending it, which is what messages of their handlers name."""

    async def main():
        async with Traced() as traced:
            message = Spanned(source="test")
            await traced.bus.send(message)
            await until(lambda: len(traced.spans("process second")) == 2)
            sent, first = await traced.span("send *"), await traced.span("process first")
            seconds = traced.spans("process second")
            passed_on = await traced.span("send second")

        assert (trace_id_of(message), span_id_of(message)) == hex_of(sent)
        assert hex_of(sent)[1] == parent_of(first) == parent_of(passed_on)
        assert sorted([hex_of(sent)[1], hex_of(passed_on)[1]]) == sorted(map(parent_of, seconds))
        assert 5 == len({hex_of(one)[1] for one in (sent, first, passed_on, *seconds)})

    run(main())


def test_errors_are_told():
    """By type, in the span and in the metrics; the bus goes on."""

    async def main():
        async with Traced() as traced:
            await traced.bus.send(Spanned(source="test", target="second", text="fail"))
            span = await traced.span("process second")
            metrics = traced.reader.get_metrics_data().to_json()

        assert ("KeyError", "ERROR") == (
            span.attributes["error.type"],
            span.status.status_code.name,
        )
        assert '"error.type": "KeyError"' in metrics

    run(main())


def test_hostile_texts_cost_no_spans():
    """Half characters, which cannot be encoded, and long names."""

    async def main():
        async with Traced() as traced:
            await traced.bus.send(Spanned(source="\udc00" + "s" * 5000, target="second"))
            span = await traced.span("process second")
        fail(span_of_error := traced.tracer.start_span("x"), ValueError("half \ud83d" + "y" * 5000))
        span_of_error.end()

        assert "?" + "s" * 1023 == span.attributes["pbus.source"]
        assert ("half ?y", 1024) == (
            span_of_error.status.description[:7],
            len(span_of_error.status.description),
        )

    run(main())


def test_sending_that_fails_is_told():
    """With the error that the sender gets."""

    async def main():
        traced = Traced()
        with pytest.raises(Exception, match="not started"):
            await traced.bus.send(Spanned(source="test", target="first"))
        span = await traced.span("send first")
        assert ("BusClosedError", "ERROR") == (
            span.attributes["error.type"], span.status.status_code.name,
        )  # fmt: skip

    run(main())


def test_housekeeping_has_no_spans():
    """Registry messages would be most of them."""

    async def main():
        async with Traced() as traced:
            await traced.bus.send(BusWorkerRegistryMessage(source="test", runner="r", workers=[]))
            await traced.bus.send(Spanned(source="test", target="second"))
            await traced.span("process second")
        assert {"send second", "process second"} == {
            span.name for span in traced.exporter.get_finished_spans()
        }

    run(main())


def test_a_span_of_the_program_goes_on():
    """Messages and jobs sent within it belong to its trace; child processes are told."""

    async def main():
        async with Traced() as traced:
            with traced.tracer.start_as_current_span("web request") as outer:
                await traced.bus.send(Spanned(source="test", target="second"))
                of_job, environ = new_traceparent(), trace_environ({"A": "b"})
                mine = current_traceparent()
                with in_trace() as other:
                    assert other not in str(mine)
            sent = await traced.span("send second")

        assert parent_of(sent) == f"{outer.context.span_id:016x}"
        assert hex_of(sent)[0] == f"{outer.context.trace_id:032x}"
        assert of_job == mine
        assert {"A": "b", "TRACEPARENT": mine} == environ

    run(main())


def test_the_trace_of_a_parent_process():
    """What is no traceparent begins none."""
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with in_trace_of({"TRACEPARENT": given}):
        assert given == new_traceparent()
        assert {"TRACEPARENT": given} == trace_environ({})
    for wrong in ({}, {"TRACEPARENT": ""}, {"TRACEPARENT": given[:-3]}, {"TRACEPARENT": "x\n"}):
        with in_trace_of(wrong):
            assert given not in new_traceparent()


def test_planned_ids_are_used_once():
    """Spans of users between have random ones."""
    ids = PlannedIds()
    ids.plan("0" * 31 + "7", "0" * 15 + "5")

    assert (7, 5) == (ids.generate_trace_id(), ids.generate_span_id())
    assert {7, 5}.isdisjoint({ids.generate_trace_id(), ids.generate_span_id()})
    assert not trace.get_current_span().get_span_context().is_valid
