"""Spans and metrics of a project in a collector: a job is one trace over all its processes."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.cli_env import CliEnv, Place, wait_for
from support.otlp_collector import Collector, ReceivedSpan

pytestmark = pytest.mark.cli

TOPOLOGY = """\
name: traced
bus: {delivery: at-least-once}
workers:
  front: {worker: "traced_workers:Front"}
  back: {worker: "traced_workers:Back"}
"""

WORKERS = """\
import subprocess, sys

from opentelemetry import trace

import pbus
from pbus import BaseWorker, BusDataMessage, job


class TracedNote(BusDataMessage):
    text: str


class Front(BaseWorker):
    @job(name="ask")
    async def ask(self, request):
        await self.send_bus_message(TracedNote(source=self.name, target="back", text="first"))
        async with self.job("back", name="answer", payload={}) as asked:
            pass
        span = trace.get_current_span().get_span_context()
        program = "import os; print(os.environ['TRACEPARENT'])"
        child = subprocess.run(
            [sys.executable, "-c", program], env=pbus.trace_environ(), capture_output=True, text=True
        )
        return {"trace": request.trace_id, "span": f"{span.span_id:016x}", "child": child.stdout.strip(),
                **asked.response}


class Back(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, TracedNote) and message.text == "bad":
            raise ValueError("no such note")

    @job(name="answer")
    async def answer(self, request):
        import os
        return {"inner": request.trace_id, "inherited": os.environ.get("TRACEPARENT")}
"""

OUTER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Place]:
    """A project whose processes have the variables of a collector, and were started within a trace."""
    with CliEnv() as cli:
        cli.environ |= collector.environ | {"TRACEPARENT": OUTER}
        place = cli.place("traced", {"topology.yaml": TOPOLOGY, "traced_workers.py": WORKERS})
        place.up()
        yield place


def ask(place: Place, traceparent: str | None = None) -> dict:
    """The answer to a job of the front, asked for by a process of its own."""
    place.cli.environ.pop("TRACEPARENT", None)
    place.cli.environ |= {} if traceparent is None else {"TRACEPARENT": traceparent}
    done = place.run("send", "front", "--job", "ask", "--wait")
    assert 0 == done.code, done.err
    return json.loads(done.out)


def spans_of(collector: Collector, trace_id: str, count: int) -> list[ReceivedSpan]:
    """All spans of a trace, when so many have come."""

    def found() -> list[ReceivedSpan]:
        return [span for span in collector.spans if span.trace_id == trace_id]

    wait_for(lambda: len(found()) >= count)
    return found()


def one(spans: list[ReceivedSpan], name: str, **attributes: str) -> ReceivedSpan:
    """The only span of that name with these attributes."""
    wanted = {key.replace("_", "."): value for key, value in attributes.items()}.items()
    (span,) = [span for span in spans if span.name == name and wanted <= span.attributes.items()]
    return span


REQUEST, RESPONSE, NOTE = "BusJobRequestMessage", "BusJobResponseMessage", "TracedNote"


def test_a_job_is_one_trace_over_all_processes(traced: Place, collector: Collector):
    """Create, send, process and settle, each below the one that led to it; no span stands alone."""
    answer = ask(traced)
    spans = spans_of(collector, answer["trace"], 15)
    by_id = {span.span_id: span for span in spans}

    create = one(spans, "create front")
    send = one(spans, "send front", pbus_message_type=REQUEST)
    process = one(spans, "process front", pbus_message_type=REQUEST)
    inner = one(spans, "send back", pbus_message_type=REQUEST)
    inner_process = one(spans, "process back", pbus_message_type=REQUEST)
    note = one(spans, "send back", pbus_message_type=NOTE)
    reply = one(spans, "send front", pbus_message_type=RESPONSE)

    assert len(by_id) == len(spans)
    assert [create.span_id] == [span.span_id for span in spans if span.parent_id not in by_id]
    assert (create.parent_id, send.parent_id) == ("", create.span_id)
    assert process.parent_id == send.span_id
    assert {process.span_id} == {inner.parent_id, note.parent_id}
    assert (inner_process.parent_id, reply.parent_id) == (inner.span_id, inner_process.span_id)
    assert {"pbus", "front", "back"} == {span.service for span in spans}
    settled = [span for span in spans if span.name.startswith("settle back")]
    assert {inner_process.span_id, one(spans, "process back", pbus_message_type=NOTE).span_id} == {
        span.parent_id for span in settled
    }
    assert {"ack"} == {span.attributes["messaging.operation.name"] for span in settled}
    assert (answer["trace"], process.span_id) == (answer["inner"], answer["span"])
    assert answer["child"] == f"00-{answer['trace']}-{process.span_id}-01"


def test_spans_have_the_attributes_of_the_conventions(traced: Place, collector: Collector):
    """Of messaging, with the job's id as conversation; the resource tells worker and project."""
    answer = ask(traced)
    spans = spans_of(collector, answer["trace"], 15)
    process = one(spans, "process back", pbus_message_type=REQUEST)
    send = one(spans, "send back", pbus_message_type=REQUEST)

    assert ("consumer", "producer") == (process.kind, send.kind)
    assert {
        "messaging.system": "pbus",
        "messaging.destination.name": "back",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "pbus.message.type": REQUEST,
        "pbus.source": "front",
        "pbus.job.name": "answer",
        "pbus.message.attempt": 1,
    }.items() <= process.attributes.items()
    assert process.attributes["messaging.message.id"] == send.attributes["messaging.message.id"]
    assert process.attributes["messaging.message.conversation_id"]
    resource = next(one for one in collector.resources if one["service.name"] == "back")
    assert "traced" == resource["service.namespace"]
    assert resource["service.instance.id"]


def test_a_trace_of_a_parent_process_goes_on(traced: Place, collector: Collector):
    """TRACEPARENT of `pbus send`; workers do not keep that of the shell that started them."""
    answer = ask(traced, OUTER)
    spans = spans_of(collector, answer["trace"], 14)

    assert OUTER.split("-")[1] == answer["trace"]
    assert one(spans, "send front", pbus_message_type=REQUEST).parent_id == OUTER.split("-")[2]
    assert [] == [span for span in spans if span.name.startswith("create")]
    assert answer["inherited"] is None


def test_errors_and_attempts_are_told(traced: Place, collector: Collector):
    """Each attempt is a span of its own, and so is each retry; metrics count them."""
    traced.run("send", "back", "--type", "TracedNote", "--data", '{"text": "bad"}')
    wait_for(lambda: sum(span.is_error for span in collector.named("process back")) >= 2)
    failed = [span for span in collector.named("process back") if span.is_error][:2]
    wait_for(
        lambda: (
            "retry"
            in {s.attributes["messaging.operation.name"] for s in collector.named("settle back")}
        )
    )

    assert ["ValueError"] * 2 == [span.attributes["error.type"] for span in failed]
    assert [1, 2] == sorted(span.attributes["pbus.message.attempt"] for span in failed)
    assert failed[0].span_id != failed[1].span_id
    assert failed[0].trace_id == failed[1].trace_id
    wait_for(
        lambda: collector.total("back", "messaging.process.duration", error_type="ValueError") >= 2
    )
    assert collector.total("front", "messaging.client.sent.messages", pbus_message_type=NOTE) >= 1
    assert collector.total("back", "messaging.client.consumed.messages") >= 4
    assert collector.total("back", "messaging.client.operation.duration") >= 1
    labels = [dict(labels) for (_, _, labels) in collector.sums]
    assert [] == [one for one in labels if "messaging.message.id" in one]
    targets = {str(one.get("messaging.destination.name")) for one in labels}
    assert [] == [name for name in targets if name.startswith("cli-") and name != "cli-*"]


PROGRAM = """
import os, sys
from pbus.bus import WorkerBus
from pbus.bus.connect import connect
from pbus.bus.local.mailbox import Mailbox
bus = connect("redis://127.0.0.1:1")
assert bus.send.__func__ is WorkerBus.send
assert bus._router.make_mailbox is Mailbox
assert not {"opentelemetry.sdk.trace", "pbus.bus.otel.traced_bus"} & sys.modules.keys()
"""


UNINSTALLED = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("environ", "before"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "True"}, ""),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
            UNINSTALLED,
        ),
    ],
    ids=["not configured", "empty", "disabled", "not installed"],
)
def test_without_it_nothing_is_loaded_or_called(environ: dict[str, str], before: str):
    """The bus has its own methods: the hot path has not even a question more."""
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM],
        env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr)


def test_a_collector_that_is_away_is_no_error(traced: Place):
    """The command answers, and prints nothing but that; what it would report is dropped."""
    before = dict(traced.cli.environ)
    traced.cli.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"
    try:
        done = traced.run("send", "back", "--job", "answer", "--wait")
    finally:
        traced.cli.environ.update(before)

    assert 0 == done.code
    assert {"inner", "inherited"} == json.loads(done.out).keys()


MEMORY = """\
name: traced-here
bus: {backend: memory}
workers:
  one-front: {worker: "memory_workers:Front"}
  one-back: {worker: "memory_workers:Back"}
"""

MEMORY_WORKERS = """\
from pbus import BaseWorker, job, worker_ready


class Front(BaseWorker):
    @worker_ready(name="one-back")
    async def on_back(self, data):
        answer = await self.job("one-back", name="answer", payload={})
        print("trace", answer["inner"], flush=True)
        await self.end()


class Back(BaseWorker):
    @job(name="answer")
    async def answer(self, request):
        return {"inner": request.trace_id}


async def main():
    from pbus import WorkerRunner

    runner = WorkerRunner()
    await runner.add_workers(Front("one-front"), Back("one-back"))
    await runner.run()


if __name__ == "__main__":
    import asyncio

    asyncio.run(main())
"""


@pytest.mark.parametrize("is_script", [False, True], ids=["topology", "script"])
def test_workers_of_one_process_are_traced(collector: Collector, is_script: bool):
    """On the bus in memory: send and process of request and answer are one trace."""
    with CliEnv() as cli:
        cli.environ |= collector.environ
        place = cli.place("one", {"topology.yaml": MEMORY, "memory_workers.py": MEMORY_WORKERS})
        if is_script:
            done = subprocess.run(
                [sys.executable, "memory_workers.py"], cwd=place.folder, env=cli.environ,
                capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            code, out, err = done.returncode, done.stdout, done.stderr
        else:
            ended = place.run("up", "--plain")
            code, out, err = ended.code, ended.out, ended.err
    assert 0 == code, err
    trace_id = next(line.split()[-1] for line in out.splitlines() if "trace " in line)
    spans = spans_of(collector, trace_id, 5)

    send = one(spans, "send one-back", pbus_message_type=REQUEST)
    process = one(spans, "process one-back", pbus_message_type=REQUEST)
    reply = one(spans, "send one-front", pbus_message_type=RESPONSE)
    assert (process.parent_id, reply.parent_id) == (send.span_id, process.span_id)
    assert one(spans, "process one-front", pbus_message_type=RESPONSE).parent_id == reply.span_id
