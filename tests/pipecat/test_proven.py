"""The sidecar under load, between programs on Pipecat's in-process bus: nothing lost, nothing changed."""

import asyncio

import pytest
from pipecat.bus import AsyncQueueBus, BusFrameMessage
from pipecat.frames.frames import InputAudioRawFrame, TextFrame
from pipecat.pipeline.job_context import JobParams
from pipecat.processors.frame_processor import FrameDirection

import pbus
from pbus.compat.pipecat import theirs as touched
from pbus.process.system.launch_plan import PIPECAT_VARIABLE
from support.pipecat_bots import Bot, Helper, ours, running, theirs
from support.valkey import Valkey
from support.waiting import run, until

FRAMES = 30_000  # ten minutes of 50 a second
JOBS = 1_000


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch, valkey: Valkey, channel: str) -> None:
    """As a program finds it that `pbus up` has started."""
    file = touched.__file__.replace("theirs.py", "setup_file.py")
    for name, value in {
        PIPECAT_VARIABLE: file,
        "PBUS_URL": valkey.tcp_url,
        "PBUS_CHANNEL": channel,
        "PBUS_SESSION": "one",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PBUS_WORKER", raising=False)


@pytest.mark.usefixtures("supervised")
@pytest.mark.parametrize("name", ["echo", "stream"])
def test_a_thousand_jobs_each_way(valkey: Valkey, channel: str, name: str):
    """Each answered with its own answer, with all its updates and pieces, in order."""

    async def main():
        a, b, p = Bot("a"), Bot("b"), Helper("p")
        crowd = asyncio.Semaphore(100)
        kinds = ["update", "stream_start", *["stream_data"] * 3, "stream_end"]

        async def of_theirs(worker, target, number):
            params = JobParams(name=name, payload={"n": number}, timeout=30)
            async with crowd, worker.job(target, params=params) as asked:
                events = [event.type async for event in asked]
            return check(events, asked.response, number)

        async def of_ours(worker, target, number):
            async with (
                crowd,
                worker.job(target, name=name, payload={"n": number}, timeout=30) as asked,
            ):
                events = [event.type async for event in asked]
            return check(events, asked.response, number)

        def check(events, response, number):
            if name == "stream":
                return events == kinds and dict(response) == {"sum": 3, "n": number}
            return response["got"] == {"n": number}

        buses = (
            theirs(AsyncQueueBus(), a),
            theirs(AsyncQueueBus(), b),
            ours(valkey.tcp_url, channel, p),
        )
        async with running(*buses):
            for ask in (
                lambda n: of_theirs(a, "p", n),
                lambda n: of_ours(p, "a", n),
                lambda n: of_theirs(a, "b", n),
            ):
                done = await asyncio.gather(*map(ask, range(JOBS)))
                assert JOBS == sum(done)
            assert not any(worker.job_groups or worker.active_jobs for worker in (a, b))

    run(main(), timeout=55)


@pytest.mark.usefixtures("supervised")
def test_ten_minutes_of_audio():
    """Faster than they are spoken: each frame byte for byte, in order, and none twice."""

    async def main():
        a, b = Bot("a"), Bot("b")
        async with running(theirs(AsyncQueueBus(), a), theirs(AsyncQueueBus(), b)):
            sent = [number.to_bytes(4, "big") * 160 for number in range(FRAMES)]
            for number, audio in enumerate(sent):
                frame = InputAudioRawFrame(audio=audio, sample_rate=16000, num_channels=1)
                await a.send_bus_message(
                    BusFrameMessage(source="a", frame=frame, direction=FrameDirection.DOWNSTREAM)
                )
                if number % 100 == 0:
                    await until(lambda n=number: len(b.messages) > n - 1000)
            await until(lambda: len(b.messages) == FRAMES, 40)
            assert sent == [message.frame.audio for message in b.messages]

    run(main(), timeout=55)


@pytest.mark.usefixtures("supervised")
def test_a_handoff_there_and_back():
    """Each activation takes effect before the frames behind it; what is inactive hears nothing."""

    async def main():
        a, b = Bot("a"), Bot("b", active=False)
        async with running(theirs(AsyncQueueBus(), a), theirs(AsyncQueueBus(), b)):
            for turn in range(20):
                speaker, listener = (a, b) if turn % 2 == 0 else (b, a)
                await speaker.activate_worker(listener.name, deactivate_self=True)
                await speaker.send_bus_message(
                    BusFrameMessage(
                        source=speaker.name,
                        target=listener.name,
                        frame=TextFrame(f"{turn}"),
                        direction=FrameDirection.DOWNSTREAM,
                    )
                )
                await until(lambda who=listener, n=turn: heard(who)[-1:] == [f"{n}"])
            texts = [heard(bot) for bot in (a, b)]
            assert [[str(n) for n in range(1, 20, 2)], [str(n) for n in range(0, 20, 2)]] == texts
            assert [True, False] == [a.active, b.active]

    def heard(bot):
        return [one.frame.text for one in bot.got(BusFrameMessage) if one.source != bot.name]

    run(main())


@pytest.mark.usefixtures("supervised")
def test_a_broker_that_is_away_keeps_no_program(
    monkeypatch: pytest.MonkeyPatch, own_valkey: Valkey, channel: str, caplog
):
    """The program runs on, on its own bus, and joins when the broker is there."""
    monkeypatch.setenv("PBUS_URL", own_valkey.tcp_url)
    monkeypatch.setattr("pbus.compat.pipecat.sidecar._START_S", 0.2)
    monkeypatch.setattr("pbus.compat.pipecat.sidecar._AGAIN_S", 0.05)
    own_valkey.kill()

    async def main():
        a, b, p = Bot("a"), Bot("b"), Helper("p")
        runner = theirs(AsyncQueueBus(), a, b)
        await runner.add_workers(a, b)
        task = asyncio.create_task(runner.run())
        async with a.job("b", params=JobParams(name="echo", payload={"n": 1}, timeout=20)) as asked:
            pass
        assert {"got": {"n": 1}, "by": "b"} == asked.response
        assert "pbus is not reached, and tried again" in caplog.text
        own_valkey.start()
        helper = ours(own_valkey.tcp_url, channel, p)
        async with running(helper):
            await until(lambda: {"a", "b"} <= set(helper.registry.remote_workers))
            assert {"got": {"n": 2}, "by": "b"} == dict(
                await p.job("b", "echo", {"n": 2}, timeout=20)
            )
        await runner.cancel()
        await task

    run(main(), timeout=50)


@pytest.mark.usefixtures("supervised")
def test_all_runners_of_a_process_end_with_it(
    monkeypatch: pytest.MonkeyPatch, valkey: Valkey, channel: str
):
    """The supervisor asks the process, which has one name, whichever of its runners has it."""
    monkeypatch.setenv("PBUS_WORKER", "host")

    async def main():
        a, b, p = Bot("a"), Bot("b"), Helper("p")
        runners = [theirs(AsyncQueueBus(), a), theirs(AsyncQueueBus(), b)]
        tasks = []
        helper = ours(valkey.tcp_url, channel, p)
        async with running(helper):
            for runner, worker in zip(runners, (a, b), strict=True):
                await runner.add_workers(worker)
                tasks.append(asyncio.create_task(runner.run(auto_end=False)))
                await until(lambda: {"a", "host"} <= set(helper.registry.remote_workers))
            await until(lambda: "b" in helper.registry.remote_workers)
            request = pbus.BusEndWorkerMessage(source="p", target="host", reason="enough")
            await p.send_bus_message(request)
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
            await until(lambda: not helper.registry.remote_workers)
        assert [True, True] == [worker._finished_event.is_set() for worker in (a, b)]

    run(main())
