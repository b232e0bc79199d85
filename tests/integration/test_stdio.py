"""Programs as workers by their stdin and stdout: real programs, on real buses."""

import asyncio
import contextlib
import functools
import logging
import shutil
import sys
import textwrap

import pytest

from pbus import BaseWorker
from pbus.bus import AsyncQueueBus, connect
from pbus.client import Client
from pbus.errors import (
    BusFullError,
    JobCancelledError,
    JobFailedError,
    ProgramStartError,
    WorkerNotFoundError,
)
from pbus.messages import BusDataMessage, BusOpaqueMessage, BusOpaqueSystemMessage
from pbus.process.stdio.program_worker import ProgramWorker
from pbus.process.system.launch_plan import PROGRAM_WORKER, WorkerLaunchSpec
from pbus.process.worker_loader import load_worker
from pbus.routing_keys import owner_of
from support.job_helpers import Doer, NotingDoer, hosted
from support.listeners import Listener
from support.waiting import PATIENCE_S, run, until

SHELL = """
    # Answers jobs and passes messages on; fields are cut out with the shell alone.
    field() { rest=${line#*\\"$1\\":\\"}; [ "$rest" = "$line" ] && value= || value=${rest%%\\"*}; }
    while read -r line; do
      field kind; kind=$value; field id; id=$value
      case $kind in
        job)
          field name; name=$value; field text; text=$value
          case $name in
            upper)
              text=$(printf %s "$text" | tr a-z A-Z)
              echo "{\\"kind\\":\\"response\\",\\"id\\":\\"$id\\",\\"data\\":{\\"text\\":\\"$text\\"}}" ;;
            steps)
              for n in 1 2 3; do echo "{\\"kind\\":\\"update\\",\\"id\\":\\"$id\\",\\"data\\":{\\"n\\":$n}}"; done
              for n in 4 5; do echo "{\\"kind\\":\\"stream\\",\\"id\\":\\"$id\\",\\"data\\":{\\"n\\":$n}}"; done
              echo "{\\"kind\\":\\"response\\",\\"id\\":\\"$id\\",\\"data\\":{\\"total\\":5}}" ;;
            fail) echo "{\\"kind\\":\\"error\\",\\"id\\":\\"$id\\",\\"error\\":\\"no such page\\"}" ;;
          esac ;;
        *) echo "{\\"type\\":\\"Heard\\",\\"target\\":\\"sink\\",\\"data\\":{\\"line\\":$line}}" ;;
      esac
    done
"""


class StdioPage(BusDataMessage):
    """A message of the test's own."""

    number: int
    load: str = ""


class Sink(Listener):
    """Keeps everything, decoded."""

    takes_opaque = True

    def accepts_bus_message(self, message):
        return message.is_opaque or isinstance(message, StdioPage)

    def data(self):
        return [message.fields().get("line") for message in self.messages]


def shell(text=SHELL, name="sh", **options):
    return ProgramWorker(name, command=["/bin/sh", "-c", textwrap.dedent(text)], **options)


def python(text, name="py", *arguments, **options):
    """A worker whose program has `say(**line)` and `lines()`."""
    head = """
        import json, os, sys, time
        def say(**line): print(json.dumps(line), flush=True)
        def lines(): return map(json.loads, iter(sys.stdin.readline, ""))
    """
    code = textwrap.dedent(head) + textwrap.dedent(text)
    return ProgramWorker(
        name, command=[sys.executable, "-c", code, *map(str, arguments)], **options
    )


@contextlib.asynccontextmanager
async def on_bus(*workers):
    """Workers, a client and a sink on one bus in memory."""
    bus, sink = AsyncQueueBus(), Sink("sink")
    await bus.subscribe(sink)
    async with hosted(lambda: bus, list(workers)), Client(bus) as client:
        yield client, sink


def test_shell_answers_jobs(caplog):
    """Requests come with an id; answers, updates, pieces and errors go back by it."""

    async def main():
        async with on_bus(shell()) as (client, _):
            assert {"text": "HALLO"} == await client.job("sh", "upper", {"text": "hallo"})
            async with client.job("sh", "steps") as asked:
                events = [(event.type, event.data) async for event in asked]
            assert [("update", {"n": n}) for n in (1, 2, 3)] == events[:3]
            pieces = [data for kind, data in events if kind == "stream_data"]
            assert ([{"n": 4}, {"n": 5}], {"total": 5}) == (pieces, asked.response)
            with pytest.raises(JobFailedError, match="no such page"):
                await client.job("sh", "fail")

    run(main())
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_node_answers_jobs():
    """The example of the README for Node; skipped where there is no Node."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    text = """
        const say = line => console.log(JSON.stringify(line));
        require("readline").createInterface({input: process.stdin}).on("line", text => {
          const line = JSON.parse(text);
          if (line.kind === "job") say({kind: "response", id: line.id, data: {length: line.data.text.length}});
        });
    """

    async def main():
        worker = ProgramWorker("js", command=["node", "-e", textwrap.dedent(text)])
        async with on_bus(worker) as (client, _):
            assert {"length": 5} == await client.job("js", "length", {"text": "hallo"})

    run(main())


def test_programs_pass_keys_on():
    """Messages and jobs that a program sends go to the replica of their key, and it is told of keys."""

    async def main():
        names = ["doer.1", "doer.2", "doer.3"]
        relay = python("""
            for line in lines():
                if line["kind"] == "message":
                    key = line["key"]
                    say(type="Note", target="doer", key=key, data=line["data"])
                elif line["kind"] == "job":
                    say(kind="job", id=1, target="doer", name="wait", key=line["key"])
                elif line["kind"] == "response":
                    say(type="Answer", target="sink", key=key, data={"by": line["source"]})
        """)
        doers = [NotingDoer(name) for name in names]
        async with on_bus(relay, *doers) as (client, sink):
            for number in range(12):
                await client.send("py", "StdioPage", {"number": number}, key=f"k{number}")
            await until(lambda: sum(len(doer.notes) for doer in doers) == 12)
            for doer in doers:
                doer.gate.set()
                mine = [n for n in range(12) if owner_of(f"k{n}", names) == doer.name]
                assert mine == doer.notes
            await client.request_job("py", "any", key="k5")
            heard = [one for one in await sink.heard(1) if one.is_opaque]
            assert ("Answer", "k11") == (heard[0].type_name, heard[0].key)
            assert owner_of("k5", names) == heard[0].fields()["by"]

    run(main())


def test_messages_pass_both_ways():
    """Header and data, in order; types that pbus does not know, too; activation and end are lines."""

    async def main():
        async with on_bus(shell()) as (client, sink):
            for number in range(300):
                await client.send("sh", "StdioPage", {"number": number})
            await client.send("sh", "NeverDefined", {"x": [1.5, None]})
            bus = client.bus
            await bus.send(
                BusOpaqueMessage(source="a", target="sh", type_name="X", data=b'{"f":1.0}')
            )
            heard = await sink.heard(303)
            lines = sink.data()
            assert {"kind": "activate", "data": {}} == lines[0]
            assert [*range(300)] == [line["data"]["number"] for line in lines[1:301]]
            assert ["NeverDefined", "X"] == [line["type"] for line in lines[301:]]
            assert {"x": [1.5, None]} == lines[301]["data"]
            assert b'"data":{"f":1.0}' in heard[302].data
            assert {"Heard"} == {message.type_name for message in heard}
            assert {"sh"} == {message.source for message in heard}
        assert {"kind": "end"} == sink.data()[-1]

    run(main())


def test_program_has_jobs_done():
    """It asks by an id of its own, hears of progress and end by it, and may cancel."""
    text = """
        say(kind="job", id=1, target="doer", name="steps", data={"count": 2})
        say(kind="job", id="two", target="doer", name="stream", data={"count": 2})
        say(kind="job", id=3, target="doer", name="fail")
        say(kind="job", id=4, target="doer", name="wait")
        for line in lines():
            if line["kind"] == "activate": continue
            if line["kind"] == "message": say(kind="cancel", id=4); continue
            say(type="Got", target="sink", data={"line": line})
    """

    async def main():
        doer = Doer()
        async with on_bus(doer, python(text)) as (client, sink):
            await until(lambda: len(sink.messages) >= 8)
            by_id = {}
            for line in sink.data():
                by_id.setdefault(line["id"], []).append((line["kind"], line.get("data")))
            assert [("update", {"number": 0}), ("update", {"number": 1})] == by_id[1][:2]
            assert ("response", {"count": 2}) == by_id[1][2]
            pieces = [data for kind, data in by_id["two"] if kind == "stream"]
            assert [{"title": "numbers"}, {"number": 0}, {"number": 1}] == pieces
            assert ("response", {"total": 2}) == by_id["two"][-1]
            assert "no such book" in next(line["error"] for line in sink.data() if line["id"] == 3)
            await doer.has_begun()
            await client.send("py", "StdioPage", {"number": 1})
            await until(lambda: doer.ended == ["cancelled"])

    run(main())


def test_cancel_reaches_the_program():
    """A job that is given up is a line; a late answer is refused in the log."""
    text = """
        for line in lines():
            if line["kind"] == "job": say(kind="update", id=line["id"])
            if line["kind"] == "cancel":
                say(type="Cancelled", target="sink", data={"line": line})
                say(kind="response", id=line["id"])
    """

    async def main():
        async with on_bus(python(text)) as (client, sink):
            async with client.job("py", "long") as asked:
                async for _ in asked:
                    break
                (job,) = (await client.open_jobs(PATIENCE_S)).jobs
                await client.cancel_job(job.job_id)
                with pytest.raises(JobCancelledError):
                    async for _ in asked:
                        pass
                    await asked
            (cancelled,) = await sink.heard(1)
            assert job.job_id == cancelled.fields()["line"]["id"]

    with contextlib.suppress(JobCancelledError):
        run(main())


def test_wrong_lines_are_errors_in_the_log(caplog):
    """Each is shown, bounded; a line that is too long is dropped; what follows is sent."""
    text = """
        print("Traceback (most recent call last):")
        print("x" * 100_000)
        say(kind="response", id="never-asked")
        say(kind="job", id="j", target="sink")
        say(kind="job", id="j", target="sink")
        say(type="StdioPage", target="sink", data={"number": "seven"})
        print("y" * 20_000_000)
        print("written to the log", file=sys.stderr)
        say(type="StdioPage", target="sink", data={"number": 7})
        sys.stdin.read()
    """

    async def main():
        async with on_bus(python(text)) as (_, sink):
            assert [7] == [message.number for message in await sink.heard(1)]

    run(main())
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    expected = (
        "JSON is malformed",
        "(100,000 bytes)",
        "job never-asked at 'py' is not open",
        "it has a job 'j' already",
        "number",
        "it has 20,000,000 bytes, and a line may have",
    )
    assert len(expected) == len(told)
    for text, record in zip(expected, told, strict=True):
        assert text in record
    assert max(map(len, told)) < 1_000


def test_stderr_is_the_log(capfd):
    """It goes where the worker's own log goes."""

    async def main():
        async with on_bus(
            shell('echo "a word" >&2; echo "{\\"type\\":\\"X\\",\\"target\\":\\"sink\\"}"; cat')
        ) as (_, sink):
            await sink.heard(1)

    run(main())
    assert "a word" in capfd.readouterr().err


def test_sender_waits_for_a_program_that_does_not_read(valkey, channel, tmp_path):
    """Flow control holds senders; what is in between is bounded; all arrive when it reads."""
    text = """
        while not os.path.exists(sys.argv[1]): time.sleep(0.01)
        count = 0
        for line in lines():
            if line["kind"] != "message": continue
            count += 1
            if line["data"]["number"] == -1: say(type="StdioCount", target="sink", data={"count": count})
    """

    async def main():
        flag, sink, load = tmp_path / "read", Sink("sink"), "x" * 10_000
        worker = python(text, "py", flag)
        make = functools.partial(connect, valkey.url, channel=channel)
        async with hosted(make, [worker]), make(send_timeout=0.3) as bus:
            await bus.subscribe(sink)
            sent = 0
            with pytest.raises(BusFullError):
                for number in range(2_000):
                    await bus.send(StdioPage(source="a", target="py", number=number, load=load))
                    sent += 1
            assert sent * len(load) < 3_000_000
            stats = worker.bus.stats("py")
            assert stats.queued * len(load) < 2_000_000
            flag.touch()
            last = StdioPage(source="a", target="py", number=-1)
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    with contextlib.suppress(BusFullError):
                        await bus.send(last)
                        break
            assert {"count": sent + 1} == (await sink.heard(1))[0].fields()

    run(main())


def test_program_waits_for_a_slow_bus(valkey, channel, tmp_path, monkeypatch):
    """Its stdout is not read while a receiver makes no room; nothing is lost and little is held."""
    monkeypatch.setattr("pbus.process.stdio.program_commands._RETRY_S", 0.01)
    text = """
        for number in range(1_000):
            say(type="StdioPage", target="slow", data={"number": number, "load": "x" * 20_000})
            open(sys.argv[1], "w").write(str(number))
        sys.stdin.read()
    """

    async def main():
        progress, gate = tmp_path / "number", asyncio.Event()

        async def wait(message):
            await gate.wait()

        slow = Sink("slow", wait)
        async with connect(valkey.url, channel=channel) as bus:
            await bus.subscribe(slow)
            worker = python(text, "py", progress)
            make = functools.partial(connect, valkey.url, channel=channel, send_timeout=0.2)
            async with hosted(make, [worker]):
                await until(worker.bus._send_buffers["d"].blocked)
                blocked = worker._reading
                assert not blocked.done()
                await until(lambda: _number(progress) == _number(progress) > 20)
                assert _number(progress) * 20_000 < 6_000_000
                gate.set()
                messages = await slow.heard(1_000)
                assert [*range(1_000)] == [message.number for message in messages]

    run(main(), 60)


def _number(path):
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return -1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('cat >/dev/null; echo \'{"type":"Last","target":"sink"}\'', 0),  # ends with its stdin
        ('trap "exit 7" TERM; exec <&-; while :; do sleep 0.01; done', 7),  # with the signal
        ('trap "" TERM; while :; do sleep 0.01; done', -9),  # with none: it is killed
    ],
)
def test_end_is_the_end_of_stdin_then_signals(text, code, monkeypatch):
    """It has its grace, and what it says last is sent."""
    monkeypatch.setattr("pbus.process.stdio.program._KILL_S", 0.2)

    async def main():
        worker = shell(text, grace_s=PATIENCE_S if code == 0 else 0.1)
        async with on_bus(worker) as (_, sink):
            pass
        assert code == worker._program.code
        assert (["Last"] if code == 0 else []) == [one.type_name for one in sink.messages]

    run(main())


def test_ready_is_a_line_where_that_is_wanted(tmp_path):
    """Until then the registry has no ready worker of the name."""
    text = """
        while not os.path.exists(sys.argv[1]): time.sleep(0.01)
        say(ready=True)
        sys.stdin.read()
    """

    async def main():
        bus, flag = AsyncQueueBus(), tmp_path / "ready"
        async with hosted(lambda: bus, [Doer()]) as (runner,), Client(bus) as client:
            await runner.add_workers(python(text, "py", flag, waits_ready=True))
            with pytest.raises(WorkerNotFoundError):
                await runner.registry.wait_ready("py", 0.1)
            flag.touch()
            await client.wait_ready("py", timeout=PATIENCE_S)

    run(main())


@pytest.mark.parametrize(
    ("command", "text", "problem"),
    [
        ("./absent.sh", None, "No such file or directory"),
        ("no-such-program-of-pbus", None, "(not in PATH)"),
        ("./plain.sh", "echo", "is not executable (chmod +x"),
        ("./odd.sh", "#!/no/such/interpreter\n", "wants the interpreter /no/such/interpreter"),
        ("./dos.sh", "#!/bin/sh\r\n", "ends with CR LF"),
    ],
)
def test_program_that_cannot_be_started_is_explained(tmp_path, monkeypatch, command, text, problem):
    """As for any program; one that is not there is not tried again."""
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / command).write_text(text)
        (tmp_path / command).chmod(0o644 if "plain" in command else 0o755)
    spec = WorkerLaunchSpec(
        worker=PROGRAM_WORKER, args={"command": [command]}, active=True, files=()
    )

    async def start():
        bus = AsyncQueueBus()
        async with hosted(lambda: bus, [Doer()]) as (runner,):
            await runner.add_workers(load_worker(spec, "py"))
            await until(lambda: runner.errors)
            assert problem in runner.errors[0].error

    if text is None or "plain" in command:
        with pytest.raises(ProgramStartError) as caught:
            load_worker(spec, "py")
        assert problem in caught.value.message
    else:
        run(start())


def test_stored_messages_wait_for_the_word_of_the_program(valkey, channel):
    """With `done` each message is in flight until the program tells of it; a failed one comes again."""
    text = """
        say(ready=True, done=True)
        seen = []
        for line in lines():
            if line["kind"] != "message": continue
            number = line["data"]["number"]
            seen.append(number)
            if number == 2 and seen.count(2) == 1: say(kind="failed", id=line["id"], error="not now")
            elif number == 3: say(type="Seen", target="sink", data={"seen": seen})
            else: say(kind="done", id=line["id"])
    """
    options = {"channel": channel, "delivery": "at-least-once"}

    async def main():
        make = functools.partial(connect, valkey.url, **options)
        async with hosted(make, [python(text, waits_ready=True)]), make() as bus:
            sink = Sink("sink")
            await bus.subscribe(sink)
            for number in (1, 2):
                await bus.send(StdioPage(source="a", target="py", number=number))

            async def settled():
                report = next(one for one in await bus.queues.stats() if one.name == "py")
                return report.in_flight == report.backlog == 0

            await _until_true(settled)
            await bus.send(StdioPage(source="a", target="py", number=3))
            assert {"seen": [1, 2, 2, 3]} == (await sink.heard(1))[0].fields()
            report = next(one for one in await bus.queues.stats() if one.name == "py")
            assert 1 == report.in_flight

    run(main())


async def _until_true(check):
    async with asyncio.timeout(PATIENCE_S):
        while not await check():
            await asyncio.sleep(0.01)


def test_urgent_message_of_a_program_overtakes():
    """Types that only the receiver knows go in the lane that the program says."""
    text = """
        say(type="Far", target="sink", urgent=True)
        sys.stdin.read()
    """

    async def main():
        async with on_bus(python(text)) as (_, sink):
            assert [BusOpaqueSystemMessage] == [type(one) for one in await sink.heard(1)]

    run(main())


def test_keys_pass_both_ways():
    """All of one key go to one replica, from a program, too; a wrong key is an error."""
    text = """
        for line in lines():
            if line["kind"] == "job": say(kind="response", id=line["id"], data={"key": line.get("key")})
            if line["kind"] == "message":
                say(kind="job", id="bad", target="doer", name="echo", key="")
                for n in range(20):
                    say(type="StdioPage", target="stt", key=f"call-{n % 4}", data={"number": n % 4})
    """

    async def main():
        bus, replicas = AsyncQueueBus(), [NotingReplica("stt.1"), NotingReplica("stt.2")]
        async with hosted(lambda: bus, [*replicas, python(text)]), Client(bus) as client:
            assert {"key": "call-1"} == await client.job("py", "any", key="call-1")
            assert {"key": None} == await client.job("py", "any")
            await client.send("py", "StdioPage", {"number": 0})
            await until(lambda: sum(len(one.pages) for one in replicas) == 20)
            assert set() == {*replicas[0].pages} & {*replicas[1].pages}

    run(main())


class NotingReplica(BaseWorker):
    """One of several: keeps the numbers of its pages."""

    def __init__(self, name):
        super().__init__(name)
        self.pages = []

    async def on_bus_message(self, message):
        if isinstance(message, StdioPage):
            self.pages.append(message.number)
