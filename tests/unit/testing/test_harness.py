"""WorkerHarness: what a test of a worker can say, and how it fails."""

import asyncio
import logging

import pytest

from pbus import (
    BaseWorker,
    BusDataMessage,
    BusEndMessage,
    JobFailedError,
    JobTimeoutError,
    WorkerNotFoundError,
    job,
    worker_ready,
)
from pbus.errors import DuplicateWorkerError, NotSeenError
from pbus.testing import FakeClock, StandIn, WorkerHarness
from support.waiting import run


class Word(BusDataMessage):
    """Something said."""

    text: str


class Parrot(BaseWorker):
    """Says again what it is told, louder; asks the vet when it is asked how it is."""

    def __init__(self, name="parrot", **options):
        super().__init__(name, **options)
        self.activations = []
        self.vets = 0

    async def on_activated(self, args):
        self.activations.append(args)

    async def on_bus_message(self, message):
        if isinstance(message, Word):
            if not message.text:
                raise ValueError("nothing to say")
            await self.send_bus_message(
                Word(source=self.name, target=message.source, text=message.text.upper())
            )

    @worker_ready(name="vet")
    async def on_vet(self, data):
        self.vets += 1

    @job(name="how")
    async def how(self, request):
        async with self.job("vet", name="look", payload={"beak": 1}, timeout=3600) as asked:
            pass
        return asked.response

    @job(name="leave")
    async def leave(self, request):
        await self.end("enough")


def to_parrot(text):
    return Word(source="another", target="parrot", text=text)


def test_message_handled_on_return():
    """What send() sent is handled when it returns, and the reaction can be awaited."""

    async def main():
        async with WorkerHarness(Parrot()) as harness:
            await harness.send(to_parrot("hello"))
            said = await harness.sent(Word)

        assert ("HELLO", "another") == (said.text, said.target)

    run(main())


def test_start_includes_activation():
    """On entering, the first on_activated is done."""

    async def main():
        async with WorkerHarness(Parrot()) as harness:
            assert [None] == harness.worker.activations

    run(main())


def test_handler_error_reaches_test():
    """What on_bus_message raises is raised by send(), and only there."""

    async def main():
        async with WorkerHarness(Parrot()) as harness:
            with pytest.raises(ValueError, match="nothing to say"):
                await harness.send(to_parrot(""))

    run(main())


def test_job_answered_through_stand_in():
    """A job's answer comes back, and the stand-in knows what it was asked."""

    async def main():
        async with WorkerHarness(Parrot()) as harness:
            vet = await harness.add_worker("vet", {"look": {"health": "fine"}})

            assert {"health": "fine"} == await harness.job("how")
            assert {"beak": 1} == (await vet.asked("look")).payload
            assert 1 == harness.worker.vets

    run(main())


def test_stand_in_answers_by_function():
    """An answer may be computed, sync or async, or be an error."""

    async def look(request):
        return {"seen": request.payload["beak"]}

    async def main():
        vet = StandIn("vet", {"look": look})
        async with WorkerHarness(Parrot(), vet) as harness:
            assert {"seen": 1} == await harness.job("how")
            vet.answers["look"] = lambda request: "well"
            assert {"result": "well"} == await harness.job("how")
            vet.answers["look"] = OSError("asleep")
            with pytest.raises(JobFailedError, match="asleep"):
                await harness.job("how")

    run(main())


def test_stand_in_answers_later():
    """A job without an answer stays open until the test answers it."""

    async def main():
        vet = StandIn("vet")
        async with WorkerHarness(Parrot(), vet) as harness, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(harness.job("how"))
            request = await vet.asked("look")
            await vet.send_job_response(request.job_id, {"health": "fine"})

            assert {"health": "fine"} == await asking

    run(main())


def test_lost_worker_noticed():
    """A stand-in that leaves is lost to the worker, and one of its name may come again."""

    async def main():
        async with WorkerHarness(Parrot()) as harness:
            await harness.add_worker("vet")
            await harness.remove_worker("vet")
            assert "vet" not in harness.worker.registry
            await harness.add_worker("vet")
            assert "vet" in harness.worker.registry

    run(main())


def test_activation_awaited():
    """activate() and deactivate() return when the worker has been told."""

    async def main():
        async with WorkerHarness(Parrot(active=False)) as harness:
            await harness.send(to_parrot("hello"))
            await harness.activate({"mood": "good"})
            assert [{"mood": "good"}] == harness.worker.activations
            await harness.deactivate()
            assert not harness.worker.active
            assert [] == harness.messages

    run(main())


def test_end_of_session_seen():
    """A worker that ends its session is over, and its message is there to look at."""

    async def main():
        async with WorkerHarness(Parrot()) as harness:
            await harness.job("leave")
            await harness.ended()

        assert ["enough"] == [
            message.reason for message in harness.messages if isinstance(message, BusEndMessage)
        ]

    run(main())


def test_missing_message_explained():
    """A wait in vain says what came instead."""

    async def main():
        async with WorkerHarness(Parrot(), timeout=0.05) as harness:
            await harness.send(to_parrot("hello"))
            with pytest.raises(NotSeenError, match=r"(?s)sent no Word like that.*'HELLO'"):
                await harness.sent(Word, where=lambda word: word.text == "BYE")

    FakeClock().run(main())


def test_long_text_shortened():
    """Of what came instead only the beginning is shown."""

    async def main():
        async with WorkerHarness(Parrot(), timeout=0.05) as harness:
            await harness.send(to_parrot("x" * 1000))
            with pytest.raises(NotSeenError) as caught:
                await harness.sent(BusEndMessage)

        assert 400 > len(str(caught.value))

    FakeClock().run(main())


def test_swallowed_error_fails():
    """What a hook raises, which pbus only logs, fails the test at the end of the block."""

    class Clumsy(Parrot):
        async def on_activated(self, args):
            raise KeyError("clumsy")

    async def main():
        with pytest.raises(KeyError, match="clumsy"):
            async with WorkerHarness(Clumsy()):
                pass
        with pytest.raises(ExceptionGroup, match="'parrot' raised"):
            async with WorkerHarness(Clumsy()) as harness:
                await harness.activate()
        async with WorkerHarness(Clumsy()) as harness:
            harness.errors.clear()

    run(main())


def test_logging_left_alone():
    """A harness that is over leaves nothing in the logging of the process."""

    async def main():
        before = list(logging.getLogger("pbus").handlers)
        async with WorkerHarness(Parrot()):
            pass

        assert before == logging.getLogger("pbus").handlers

    run(main())


def test_crash_at_start_raised():
    """What start() or stop() raises is raised by the block itself."""

    class Broken(BaseWorker):
        async def start(self):
            raise OSError("no ink")

    class Sticky(BaseWorker):
        async def stop(self):
            raise OSError("no water")

    async def main():
        with pytest.raises(OSError, match="no ink"):
            async with WorkerHarness(Broken("broken")):
                pass
        with pytest.raises(OSError, match="no water"):
            async with WorkerHarness(Sticky("sticky")):
                pass

    run(main())


def test_slow_start_noticed():
    """A worker that does not get ready in time is no riddle."""

    class Slow(BaseWorker):
        async def start(self):
            await asyncio.Event().wait()

    async def main():
        with pytest.raises(NotSeenError, match=r"'slow' did not start within 0\.05 s"):
            async with WorkerHarness(Slow("slow"), timeout=0.05):
                pass

    FakeClock().run(main())


def test_taken_name_refused():
    """Two workers of one name are a mistake of the test."""

    async def main():
        with pytest.raises(DuplicateWorkerError):
            async with WorkerHarness(Parrot(), StandIn("parrot")):
                pass

    run(main())


def test_worker_gone_before_handling():
    """A message to a worker that has ended is not waited for in vain."""

    async def main():
        async with WorkerHarness(Parrot()) as harness:
            await harness.remove_worker("parrot")
            with pytest.raises(NotSeenError, match="did not handle Word"):
                await harness.send(to_parrot("hello"))

    run(main())


def test_long_deadlines_take_no_time():
    """By a fake clock, an hour's deadline passes without a wait."""

    async def main():
        async with WorkerHarness(Parrot(), StandIn("vet")) as harness:
            with pytest.raises(JobFailedError, match="timed out after 3600 s"):
                await harness.job("how", timeout=7200)
            with pytest.raises(JobTimeoutError):
                await harness.job("how", timeout=60)

    clock = FakeClock()
    clock.run(main())

    assert 3660 <= clock() < 3700


def test_absent_worker_by_fake_clock():
    """Patience with a worker that never comes is a deadline like any other."""

    async def main():
        async with WorkerHarness(Parrot()) as harness:
            with pytest.raises(WorkerNotFoundError):
                await harness.worker.activate_worker("nobody")

    FakeClock().run(main())
