"""Messages and jobs are counted by edge on every backend, exactly, at the sender and the receiver."""

import asyncio
import random
from collections import Counter

import pytest

from pbus.handlers import job
from pbus.messages import BusDataMessage, BusSystemMessage
from pbus.runner import WorkerRunner
from pbus.stats.stats_record import decode_stats
from support.job_helpers import Asker, ask, one_attempt
from support.recorder import Recorder
from support.waiting import finishes, run, until


class LoadNote(BusDataMessage):
    """Data."""

    text: str = ""


class LoadAlarm(BusSystemMessage):
    """Urgent."""


class Faulty(Recorder):
    """Raises for each tenth note, and answers jobs."""

    async def handle(self, message):
        if isinstance(message, LoadNote) and message.text.endswith("0"):
            raise ValueError(message.text)

    @job(name="half")
    async def half(self, request):
        return {"half": request.payload["n"] / 2}

    @job(name="raise")
    async def refuse(self, request):
        raise LookupError(request.job_id)

    def accepts_bus_message(self, message):
        return isinstance(message, LoadNote | LoadAlarm) or super().accepts_bus_message(message)


def counts(bus, name, *sources):
    """A count of edges of these sources, by source, target and type, without those that are 0."""
    return {
        (edge.source, edge.target, edge.type): getattr(edge, name)
        for edge in bus.edges.edges()
        if edge.source in sources and getattr(edge, name)
    }


async def started(bus, *workers):
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(*workers)
    task = asyncio.create_task(runner.run(), name="runner of a test")
    await asyncio.gather(*(runner.registry.wait_ready(worker.name) for worker in workers))
    return runner, task


async def ended(*running):
    for runner, task in running:
        await runner.cancel("the test is over")
        await finishes(task)


def test_a_known_load_is_counted_exactly(make_any_bus, any_backend):
    """A seeded load of two types, targeted and to all: every message, byte, error and job."""
    rng = random.Random(1_414)

    async def main():
        here, there = (
            make_any_bus(**one_attempt(any_backend)),
            make_any_bus(**one_attempt(any_backend)),
        )
        asker, taker = Asker(), Faulty("taker")
        running = [await started(here, asker), await started(there, taker)]
        await running[0][0].registry.wait_ready("taker")
        expected = Counter()
        for number in range(300):
            kind, target = rng.choice([LoadNote, LoadNote, LoadAlarm]), rng.choice(["taker", None])
            fields = {"text": f"{number} 1"} if kind is LoadNote else {}
            await asker.send_bus_message(kind(source="asker", target=target, **fields))
            expected["asker", target or "*", kind.__name__] += 1
        for number in range(10):
            await asker.send_bus_message(
                LoadNote(source="asker", target="taker", text=f"{number}0")
            )
        expected["asker", "taker", "LoadNote"] += 10

        def taken():
            return {
                key: count
                for key, count in counts(there, "handled", "asker").items()
                if key[2] in {"LoadNote", "LoadAlarm"} and key[1] == "taker"
            }

        targeted = {key: count for key, count in expected.items() if key[1] == "taker"}
        await until(lambda: taken() == targeted)

        def sent():  # counted when the broker has confirmed it, which may be after it was handled
            return {
                key: count
                for key, count in counts(here, "sent", "asker").items()
                if key in expected
            }

        await until(lambda: sent() == dict(expected))
        assert 10 == counts(there, "errors", "asker")["asker", "taker", "LoadNote"]
        edge = there.edges.edge("asker", "taker", "LoadNote")
        assert edge.handled == edge.handling.count == edge.wait.count
        assert 0 < edge.wait.sum_s
        await ended(*running)

    run(main())


def test_jobs_are_counted_by_name_and_outcome(make_any_bus, any_backend):
    """At the requester, once each, with the time to the answer; a failed one is an error."""

    async def main():
        here, there = (
            make_any_bus(**one_attempt(any_backend)),
            make_any_bus(**one_attempt(any_backend)),
        )
        asker, taker = Asker(), Faulty("taker")
        running = [await started(here, asker), await started(there, taker)]
        for number in range(7):
            await ask(asker, "taker", "half", payload={"n": number})
        await asyncio.gather(
            *(ask(asker, "taker", "raise") for _ in range(3)), return_exceptions=True
        )
        with pytest.raises(Exception, match="absent"):
            await ask(asker, "absent", "half", timeout=0.05)
        found = {
            (edge.requester, edge.worker, edge.name): edge.outcomes
            for edge in here.edges.job_edges()
        }
        latency = here.edges.job_edge("asker", "taker", "half").latency

        assert {
            ("asker", "taker", "half"): {"completed": 7},
            ("asker", "taker", "raise"): {"error": 3},
            ("asker", "absent", "half"): {"timeout": 1},
        } == found
        assert 7 == latency.count
        assert 0 < latency.quantile(0.5) <= latency.sum_s
        await ended(*running)

    run(main())


def test_counts_are_kept_over_a_restart(make_any_bus):
    """A worker that ends stores its counts, and its next incarnation goes on from them."""

    async def main():
        one = make_any_bus()
        taker = Recorder("taker")
        runner, task = await started(one, taker)
        session = runner.session
        for _ in range(5):
            await taker.send_bus_message(LoadNote(source="taker", target="taker"))
        await until(lambda: 5 == len(taker.received))
        await ended((runner, task))
        two = make_any_bus()
        again = WorkerRunner(bus=two, session=session, handle_sigint=False)
        taker = Recorder("taker")
        await again.add_workers(taker)
        task = asyncio.create_task(again.run(), name="second runner of a test")
        await again.registry.wait_ready("taker")
        await taker.send_bus_message(LoadNote(source="taker", target="taker"))
        await until(lambda: taker.received)
        await ended((again, task))
        async with make_any_bus() as reader:
            record = decode_stats((await reader.leases.stats("taker"))["taker"])
        (edge,) = [edge for edge in record.edges if edge.type == "LoadNote"]

        assert (6, 6, 6) == (edge.sent, edge.handled, edge.handling.count)

    run(main())


@pytest.mark.parametrize("is_on", [True, False])
def test_counting_can_be_turned_off(make_forgetting_bus, is_on, channel):
    """Then nothing is counted and nothing stored, and messages arrive as ever."""

    async def main():
        bus = make_forgetting_bus(stats=is_on)
        if bus.edges is not None and not is_on:  # in memory one bus is shared: made without options
            bus.edges = None
            bus._router.edges = None
        taker = Recorder("taker")
        running = await started(bus, taker)
        await taker.send_bus_message(LoadNote(source="taker", target="taker"))
        await taker.send_bus_message(LoadNote(source="taker", target="no-worker"))
        await until(lambda: taker.received)
        if is_on:
            key = ("taker", "no-worker", "LoadNote")
            await until(lambda: {key: 1} == counts(bus, "undelivered", "taker"))
        await running[0].registry._stats.report()
        stored = await bus.leases.stats()

        assert is_on == ("taker" in stored)
        await ended(running)

    run(main())
