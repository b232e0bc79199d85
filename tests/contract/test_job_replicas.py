"""Jobs on every backend, when workers have replicas, or are lost."""

import asyncio

import pytest

from pbus.errors import (
    JobFailedError,
    JobWorkerLostError,
)
from pbus.handlers import job
from pbus.messages import BusEndWorkerMessage
from support.job_helpers import Asker, Doer, ask, hosted, leftovers
from support.waiting import run, until


def test_replicas_share_the_jobs(make_forgetting_bus):
    """A group's name stands for its replicas: fewest open jobs first, then in turn."""

    async def main():
        asker, replicas = Asker(), [Doer("doer.1"), Doer("doer.2"), Doer("doer.3")]
        async with hosted(make_forgetting_bus, [asker], replicas[:2], replicas[2:]):
            jobs = [asyncio.create_task(ask(asker, "doer", "wait")) for _ in range(6)]
            await until(lambda: sum(len(doer.begun) for doer in replicas) == 6)
            assert [2, 2, 2] == [len(doer.begun) for doer in replicas]
            replicas[1].gate.set()
            # Its answers, not its own idea of being done, are what the asker chooses by.
            await until(lambda: sum(job.done() for job in jobs) == 2)
            async with asker.job("doer", name="wait") as j:
                pass
            assert ({"by": "doer.2"}, "doer.2") == (j.response, j.response.worker)
            for doer in replicas:
                doer.gate.set()
            await asyncio.gather(*jobs)

    run(main())


def test_inactive_replica_is_passed_over(make_bus):
    """Only active replicas get jobs; if none is, the requester is told so."""

    async def main():
        asker, off, on = Asker(), Doer("doer.1", active=False), Doer("doer.2")
        async with hosted(make_bus, [asker], [off, on]):
            answers = [await ask(asker, "doer", "echo") for _ in range(3)]
            assert ["doer.2"] * 3 == [answer.worker for answer in answers]
            await asker.deactivate_worker("doer.2")
            await until(lambda: not asker.registry.ready("doer"))
            with pytest.raises(JobFailedError, match="not active"):
                await ask(asker, "doer", "echo")

    run(main())


def test_refused_by_a_stopping_replica(make_forgetting_bus):
    """A request that comes to a replica which stops is done by another, without any retries."""

    async def main():
        asker, first, second = Asker(), Doer("doer.1"), Doer("doer.2")
        async with hosted(make_forgetting_bus, [asker], [first], [second]):
            waiting = [asyncio.create_task(ask(asker, "doer", "wait")) for _ in range(2)]
            await until(lambda: [1, 1] == [len(doer.begun) for doer in (first, second)])
            first._is_stopping = True  # before any news of it
            jobs = [asyncio.create_task(ask(asker, "doer", "echo")) for _ in range(4)]
            await until(lambda: sum(job.done() for job in jobs) >= 2)
            await first.registry.set_stopping(first.name)
            assert {"doer.2"} == {(await job).worker for job in jobs}
            first.gate.set()
            second.gate.set()
            await asyncio.gather(*waiting)
            assert {"doer.1": 0, "doer.2": 0} == {
                one: asker._job_client._replicas._open[one] for one in ("doer.1", "doer.2")
            }

    run(main())


def test_last_replica_that_stops_refuses(make_forgetting_bus):
    """Where no other is ready the error says at once that it stops."""

    async def main():
        asker, only = Asker(), Doer("doer.1")
        async with hosted(make_forgetting_bus, [asker], [only]):
            only._is_stopping = True
            with pytest.raises(JobWorkerLostError, match="is stopping"):
                await ask(asker, "doer", "echo")

    run(main())


def test_replica_leaves_under_load(make_forgetting_bus):
    """One that is told that others take its place works on until its requesters have turned away."""

    async def main():
        asker, first, second = Asker(), Doer("doer.1"), Doer("doer.2")
        async with hosted(make_forgetting_bus, [asker], [first], [second]):
            answers = []

            async def go_on():
                while "doer.1" in asker.registry.ready_names() or len(answers) % 50:
                    answers.append((await ask(asker, "doer", "echo")).worker)

            load = [asyncio.create_task(go_on()) for _ in range(4)]
            await until(lambda: "doer.1" in answers)
            end = BusEndWorkerMessage(source="asker", target="doer.1", leaves=True)
            await asker.send_bus_message(end)
            await asyncio.gather(*load)
            assert {"doer.1", "doer.2"} == set(answers)
            assert "doer.2" == (await ask(asker, "doer", "echo")).worker

    run(main())


async def lose(runner, name):
    """Have a worker's lease end, as when its process was killed."""
    await runner.registry.unregister(name, "killed by a test")


def test_w07_lost_worker_ends_job(make_forgetting_bus):
    """A job at a worker that died waited for ever."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_forgetting_bus, [asker], [doer]) as (_, runner):
            with pytest.raises(JobWorkerLostError, match="killed by a test"):
                async with asker.job("doer", name="wait"):
                    await doer.has_begun()
                    await lose(runner, "doer")
            await until(lambda: len(asker.told_of("error")) == 1)
            assert [0] == leftovers(asker)

    run(main())


def test_lost_worker_is_replaced(make_forgetting_bus):
    """With retries, a job whose worker was lost is asked of another replica."""

    async def main():
        asker, first, second = Asker(), Doer("doer.1"), Doer("doer.2")
        async with hosted(make_forgetting_bus, [asker], [first], [second]) as (_, runner, _other):
            second.gate.set()
            async with asker.job("doer", name="wait", retries=1) as j:
                await first.has_begun()
                await lose(runner, "doer.1")
            assert {"by": "doer.2"} == j.response

    run(main())


def test_restarted_worker_is_asked_again(make_forgetting_bus):
    """With retries, a job goes on at the next incarnation of its worker, under another id."""

    async def main():
        asker, first, second = Asker(), Doer(), Doer()
        second.gate.set()
        async with hosted(make_forgetting_bus, [asker], [first]) as (_, runner):
            async with asker.job("doer", name="wait", retries=1) as j:
                await first.has_begun()
                await runner.remove_workers("doer", timeout=0.1)
                await runner.add_workers(second)
            assert {"by": "doer"} == j.response
            assert [f"{j.job_id}~2"] == second.begun
            await until(lambda: asker.told_of("completed"))
            assert [j.job_id] == [message.job_id for message in asker.told_of("response")]

    run(main())


def test_answer_in_flight_survives_loss(make_bus):
    """The news that a worker left overtakes its last answer, and must not undo it."""

    class Leaver(Doer):
        @job(name="last")
        async def last(self, request):
            await self.send_job_update(request.job_id, {"number": 1})
            await self.send_job_response(request.job_id, {"last": True})
            self.begun.append(request.job_id)

    class Slow(Asker):
        def __init__(self):
            super().__init__()
            self.gate = asyncio.Event()

        async def on_job_update(self, message):
            await self.gate.wait()

    async def main():
        asker, leaver = Slow(), Leaver()
        async with hosted(make_bus, [asker], [leaver]) as (asking, runner):
            async with asker.job("doer", name="last") as j:
                await leaver.has_begun()
                # The answer is here, behind the update whose hook waits.
                await until(lambda: asker.bus.stats("asker").queued == 1)
                await lose(runner, "doer")
                await until(lambda: "doer" not in asking.registry)
                await asyncio.sleep(0.3)  # longer than the least grace
                asker.gate.set()
            assert {"last": True} == j.response

    run(main())


def test_lost_member_without_cancel(make_forgetting_bus):
    """In a group that goes on after errors, a lost worker's part ends as an error."""

    async def main():
        asker, one, two = Asker(), Doer("one"), Doer("two")
        async with hosted(make_forgetting_bus, [asker], [one], [two]) as (_, runner, _other):
            two.gate.set()
            options = {"name": "wait", "cancel_on_error": False}
            async with asker.job_group("one", "two", **options) as group:
                await one.has_begun()
                await lose(runner, "one")
            assert {"one": "error", "two": "completed"} == group.statuses
            assert "JobWorkerLostError" == group.responses["one"]["type"]

    run(main())
