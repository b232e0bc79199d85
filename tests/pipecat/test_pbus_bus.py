"""`PbusBus`: Pipecat's workers on pbus' transport, with each other and with those of pbus."""

import asyncio

import pytest
from pipecat.bus import BusCancelWorkerMessage, BusFrameMessage, BusTTSSpeakMessage
from pipecat.frames.frames import InputAudioRawFrame, TextFrame, TranscriptionFrame
from pipecat.pipeline.job_context import JobError, JobGroupParams, JobParams
from pipecat.processors.frame_processor import FrameDirection
from pipecat.workers.base_worker import WorkerActivationArgs

import pbus
from pbus.compat.pipecat import PbusBus
from pbus.errors import BusError, MessageEncodeError
from support.odd_names import ODD_NAMES
from support.pipecat_bots import Bot, Helper, ours, pbus_bus, running, theirs
from support.valkey import Valkey
from support.waiting import PATIENCE_S, run, until

STREAM = [
    ("update", {"percent": 50}),
    ("stream_start", {"kind": "text"}),
    *(("stream_data", {"n": number}) for number in range(3)),
    ("stream_end", {"sum": 3, "x": 1}),
]
ASK = JobParams(name="stream", payload={"x": 1}, timeout=15)


async def events_of(context):
    """The events of a job, and its response."""
    async with context as asked:
        events = [(event.type, event.data) async for event in asked]
    return events, asked.response


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoding": "msgpack"},
        {"delivery": "at-least-once"},
        {"key": "a-key-of-the-pipecat-suite", "encrypt": True, "delivery": "at-least-once"},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "plain",
)
def test_jobs_cross_both_ways(valkey: Valkey, channel: str, options):
    """Between processes of Pipecat, and between Pipecat and pbus: updates, streams, answers."""

    async def main():
        a, b, p = Bot("a"), Bot("b"), Helper("p")
        url = valkey.tcp_url
        async with running(
            theirs(pbus_bus(url, channel, **options), a),
            theirs(pbus_bus(url, channel, **options), b),
            ours(url, channel, p, **options),
        ):
            for target in ("b", "p"):
                assert (STREAM, {"sum": 3, "x": 1}) == await events_of(a.job(target, params=ASK))
            async with p.job("b", name="stream", payload={"x": 1}, timeout=15) as asked:
                events = [(event.type, event.data) async for event in asked]
            assert (STREAM, {"sum": 3, "x": 1}) == (events, dict(asked.response))
            params = JobGroupParams(name="echo", payload={"n": [1, None, 2.5]}, timeout=15)
            async with a.job_group("b", "p", params=params) as group:
                pass
            expected = {name: {"got": {"n": [1, None, 2.5]}, "by": name} for name in ("b", "p")}
            assert expected == group.responses

    run(main())


def test_jobs_that_fail_end(valkey: Valkey, channel: str):
    """A raised error, an unknown job, an inactive worker, a cancel: each ends at once."""

    async def main():
        a, b, c, p = Bot("a"), Bot("b", active=False), Bot("c"), Helper("p")
        url = valkey.tcp_url
        second = theirs(pbus_bus(url, channel), b)
        third = theirs(pbus_bus(url, channel), c)
        async with running(theirs(pbus_bus(url, channel), a), second, third, ours(url, channel, p)):
            for target, name in (("p", "fail"), ("p", "unknown"), ("b", "echo")):
                with pytest.raises(JobError, match=f"'{target}' errored"):
                    async with a.job(target, params=JobParams(name=name, timeout=15)):
                        pass
            with pytest.raises(pbus.JobFailedError, match="not active"):
                await p.job("b", "echo", timeout=15)
            hang = JobParams(name="hang", timeout=15)
            job_id = await a.request_job("c", params=hang)
            await until(lambda: job_id in c.active_jobs)
            await a.cancel_job_group(job_id, reason="changed my mind")
            await until(lambda: c.cancelled == ["changed my mind"] and not c.active_jobs)

    run(main())


def test_a_handoff_and_frames(valkey: Valkey, channel: str):
    """Activation with arguments, frames of each kind unchanged, deactivation, speech."""

    async def main():
        a, b, p = Bot("a"), Bot("b", active=False), Helper("p")
        url = valkey.tcp_url
        async with running(
            theirs(pbus_bus(url, channel), a),
            theirs(pbus_bus(url, channel), b),
            ours(url, channel, p),
        ):
            args = WorkerActivationArgs(metadata={"k": 1})
            await a.activate_worker("b", args=args, deactivate_self=True)
            await until(
                lambda: b.activations == [{"metadata": {"k": 1}}] and a.activations[-1] == "off"
            )
            frames = [
                TextFrame("héllo"),
                InputAudioRawFrame(audio=bytes(range(256)), sample_rate=16000, num_channels=1),
                TranscriptionFrame(text="t", user_id="u", timestamp="now"),
            ]
            sent = [
                BusFrameMessage(source="b", frame=one, direction=way, bridge="voice")
                for one, way in zip(
                    frames, [FrameDirection.UPSTREAM, *[FrameDirection.DOWNSTREAM] * 2], strict=True
                )
            ]
            await b.activate_worker("a")
            await until(lambda: a.active)
            for message in sent:
                await b.send_bus_message(message)
            await b.send_bus_message(BusTTSSpeakMessage(source="b", target="a", text="hi"))
            await until(lambda: a.got(BusTTSSpeakMessage))
            got = a.got(BusFrameMessage)
            assert sent == got
            assert [one.frame.id for one in got] == [one.id for one in frames]
            assert got[0] is not sent[0]
            await until(lambda: p.frames)
            text = p.frames[0].frame
            assert (pbus.TextFrame, "héllo", "upstream") == (
                type(text),
                text.text,
                p.frames[0].direction,
            )
            await p.send_bus_message(
                pbus.BusFrameMessage(source="p", target="a", frame=pbus.TextFrame(text="back"))
            )
            await p.send_bus_message(
                pbus.BusFrameMessage(
                    source="p",
                    target="a",
                    frame=pbus.AudioRawFrame(audio=b"\0\1\2\3", sample_rate=8000),
                )
            )
            await until(lambda: len(a.got(BusFrameMessage)) == 5)
            back, audio = (one.frame for one in a.got(BusFrameMessage)[3:])
            assert ("TextFrame", "back") == (type(back).__name__, back.text)
            assert (b"\0\1\2\3", 8000, 2) == (audio.audio, audio.sample_rate, audio.num_frames)
            await p.deactivate_worker("b")
            await until(lambda: not b.active)

    run(main())


def test_what_cannot_travel_is_an_error_at_its_sender(valkey: Valkey, channel: str):
    """It names the field; nothing is sent."""

    async def main():
        a, b = Bot("a"), Bot("b")
        url = valkey.tcp_url
        async with running(theirs(pbus_bus(url, channel), a), theirs(pbus_bus(url, channel), b)):
            wrong = JobParams(name="echo", payload={"list": [1, {"x": object()}]}, timeout=5)
            with pytest.raises(MessageEncodeError, match=r"payload\.list\[1\]\.x"):
                await a.request_job("b", params=wrong)
            assert {"got": {}, "by": "b"} == await response(a.job("b", params=empty()))

    def empty():
        return JobParams(name="echo", payload={}, timeout=15)

    async def response(context):
        async with context as asked:
            pass
        return asked.response

    run(main())


def test_everyone_learns_of_everyone(valkey: Valkey, channel: str):
    """Watches fire for workers of other processes, also for a successor, and for each once."""

    async def main():
        a, b, p = Bot("a"), Bot("b"), Helper("p")
        url = valkey.tcp_url
        first = theirs(pbus_bus(url, channel), a)
        seen = []

        async def note(data):
            seen.append(data.worker_name)

        async with running(first, ours(url, channel, p)):
            await first.registry.watch("b", note)
            async with running(theirs(pbus_bus(url, channel), b)):
                await until(lambda: seen == ["b"])
                assert {"a", "p"} <= set(b.registry.remote_workers)
                assert p.registry.get("b") is not None
            await until(lambda: "b" not in first.registry and p.registry.get("b") is None)
            again = Bot("b")
            async with running(theirs(pbus_bus(url, channel), again)):
                await until(lambda: seen == ["b", "b"])
                assert {"got": None, "by": "b"} == (
                    await events_of(a.job("b", params=JobParams(name="echo", timeout=15)))
                )[1]

    run(main())


def test_a_session_ends_for_all(valkey: Valkey, channel: str):
    """`end()` of a worker ends the runners of all processes; those of another channel go on."""

    async def main():
        a, b, p, other = Bot("a"), Bot("b"), Helper("p"), Bot("other")
        url = valkey.tcp_url
        runners = [theirs(pbus_bus(url, channel), a), theirs(pbus_bus(url, channel), b)]
        helper = ours(url, channel, p)
        async with running(theirs(pbus_bus(url, f"{channel}-2"), other)):
            async with running(*runners, helper):
                await a.end(reason="done")
                await asyncio.wait_for(a.wait(), 15)
                await asyncio.wait_for(b.wait(), 15)
                await until(lambda: not helper.registry.local_workers)
            assert not other._finished_event.is_set()

    run(main())


def test_a_bus_says_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    """Without a broker, a supervisor or a runner."""
    with pytest.raises(BusError, match="for several processes"):
        PbusBus("memory://")
    monkeypatch.delenv("PBUS_URL", raising=False)
    with pytest.raises(BusError, match="no `pbus up` started this program"):
        PbusBus.from_env()

    async def main():
        with pytest.raises(BusError, match="started by its runner"):
            await PbusBus("redis://127.0.0.1:1").start()

    run(main())


def test_names_of_any_text_and_children_are_reached(valkey: Valkey, channel: str):
    """Names that only need quotes; a child, which has no name for others, gets its answers."""

    async def main():
        url, odd = valkey.tcp_url, [Bot(name) for name in ODD_NAMES if "#" not in name]
        asker, kid = Bot("9 asker"), Bot("kid")
        second = theirs(pbus_bus(url, channel), asker)
        async with running(theirs(pbus_bus(url, channel), *odd), second):
            await asker.add_workers(kid)
            await until(lambda: "kid" in second.registry.local_workers)
            for worker in (asker, kid):
                for name in (bot.name for bot in odd):
                    ask = JobParams(name="echo", payload={"n": name}, timeout=15)
                    _, response = await events_of(worker.job(name, params=ask))
                    assert {"got": {"n": name}, "by": name} == response
            assert not kid.job_groups
            assert "kid" not in odd[0].registry

    run(main())


def test_a_name_that_is_taken_is_refused(valkey: Valkey, channel: str, caplog):
    """The second of two is told in the log; the first one goes on, and jobs reach it alone."""

    async def main():
        first, second, asker = Bot("same"), Bot("same"), Bot("asker")
        url = valkey.tcp_url
        async with running(
            theirs(pbus_bus(url, channel), first), theirs(pbus_bus(url, channel), asker)
        ):
            late = theirs(pbus_bus(url, channel), second)
            await late.add_workers(second)
            task = asyncio.create_task(late.run())
            await until(lambda: "worker same is not registered" in caplog.text)
            for _ in range(3):
                await events_of(asker.job("same", params=JobParams(name="echo", timeout=15)))
            assert (3, 0) == (len(first.messages), len(second.messages))
            await late.cancel()
            await task

    run(main())


def test_children_are_in_the_lease_of_their_root(valkey: Valkey, channel: str):
    """Children of a named worker are in its lease; unnamed workers in that of their process."""

    async def main():
        url, root, kid = valkey.tcp_url, Bot("root"), Bot("kid")
        unnamed, below = Bot(None), Bot("below")
        runner = theirs(PbusBus(url, channel=channel, entry="process"), root)
        async with (
            running(runner, theirs(pbus_bus(url, channel), Bot("asker"))),
            pbus.connect(url, channel=channel) as reader,
        ):
            await runner.add_workers(unnamed)
            await root.add_workers(kid)
            await unnamed.add_workers(below)

            async def children():
                return {
                    one.name: [(child.name, child.depth) for child in one.children]
                    for one in await reader.leases.leases()
                }

            expected = {
                "asker": [],
                "process": [(unnamed.name, 1), ("below", 2)],
                "root": [("kid", 1)],
            }
            await becomes(children, expected)
            await root.bus.send(BusCancelWorkerMessage(source="root", target="kid"))
            await becomes(children, {**expected, "root": []})

    run(main())


async def becomes(look, expected):
    """Wait until an async function returns a value."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await look()) != expected:
            await asyncio.sleep(0.05)
    assert expected == found
