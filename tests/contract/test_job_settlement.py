"""Jobs on a bus that keeps messages: settled when they are over, tried again, left to the next."""

import asyncio
import logging

import pytest

from pbus.bus.local.lane_hold import release_lane
from pbus.errors import JobCancelledError, JobFailedError
from pbus.handlers import PENDING, job
from pbus.messages import BusJobRequestMessage, BusJobResponseMessage
from pbus.workers.base_worker import BaseWorker
from support.faults import MISHAPS
from support.job_helpers import Asker, Doer, HastyDoer, Note, NotingDoer, ask, hosted, leftovers
from support.waiting import PATIENCE_S, happens, run, until

pytestmark = pytest.mark.redis


async def nothing_kept(runner, *names):
    """Wait until these queues hold nothing."""
    store = runner.bus.queues

    async def backlog():
        return sum(report.backlog for report in await store.stats() if report.name in names)

    async with asyncio.timeout(PATIENCE_S):
        while await backlog():
            await asyncio.sleep(0.02)


def test_answered_job_is_settled(make_keeping_bus):
    """Nothing of a job stays in any queue once it is answered."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_keeping_bus, [asker], [doer]) as (runner, _):
            assert {"result": 3} == await ask(asker, "doer", "echo", payload={"value": 3})
            async with asker.job("doer", name="steps", payload={"count": 20}) as j:
                seen = [event.data["number"] async for event in j]
            assert list(range(20)) == seen
            with pytest.raises(JobFailedError, match="has no job"):
                await ask(asker, "doer", "unknown")
            await nothing_kept(runner, "asker", "doer")
            assert [0, 0] == leftovers(asker, doer)

    run(main())


def test_raising_job_is_tried_again(make_keeping_bus):
    """A handler that raised is started again; the requester learns only how it ended."""

    class Unlucky(BaseWorker):
        def __init__(self):
            super().__init__("unlucky")
            self.attempts = 0

        @job(name="try")
        async def attempt(self, request: BusJobRequestMessage) -> dict[str, int]:
            self.attempts += 1
            if self.attempts == 1:
                raise LookupError("not yet")
            return {"attempts": self.attempts}

    async def main():
        asker, unlucky = Asker(), Unlucky()
        async with hosted(make_keeping_bus, [asker], [unlucky]) as (runner, _):
            assert {"attempts": 2} == await ask(asker, "unlucky", "try", timeout=30)
            await nothing_kept(runner, "unlucky")

    run(main())


def test_last_attempt_is_answered(make_keeping_bus):
    """When no attempt is left the error is the answer, and the request a dead letter."""

    async def main():
        asker, doer = Asker(), Doer()

        def make(**options):
            return make_keeping_bus(queue_options={"max_attempts": 2}, **options)

        async with hosted(make, [asker], [doer]) as (runner, _):
            with pytest.raises(JobFailedError, match="no such book"):
                await ask(asker, "doer", "fail", timeout=30)
            await nothing_kept(runner, "doer")
            (message,) = await runner.bus.queues.dead_letters("doer")
            assert ("doer", 2) == (message.queue, message.attempt)

    run(main())


def test_pending_job_is_kept(make_keeping_bus):
    """A job to be answered later stays with the broker until it is."""

    class Later(BaseWorker):
        @job(name="later")
        async def later(self, request):
            return PENDING

    async def main():
        asker, later = Asker(), Later("later")
        async with hosted(make_keeping_bus, [asker], [later]) as (runner, _):
            async with asker.job("later", name="later") as j:
                await until(lambda: later.active_jobs)
                reports = {one.name: one for one in await runner.bus.queues.stats()}
                assert 1 == reports["later"].in_flight
                await later.send_job_response(j.job_id, {"late": True})
            assert {"late": True} == j.response
            await nothing_kept(runner, "later")

    run(main())


def test_cancelled_job_is_settled(make_keeping_bus):
    """A cancel ends a stored job, at its worker and in its queue."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_keeping_bus, [asker], [doer]) as (runner, _):
            with pytest.raises(JobCancelledError):
                async with asker.job("doer", name="wait") as j:
                    await doer.has_begun()
                    await asker.cancel_job_group(j.job_id)
            await until(lambda: doer.ended == ["cancelled"])
            await nothing_kept(runner, "doer")

    run(main())


def test_stopped_worker_leaves_its_job(make_keeping_bus):
    """A worker that stops ends no job: its next incarnation does it."""

    async def main():
        asker, first, second = Asker(), Doer(), Doer()
        second.gate.set()
        async with hosted(make_keeping_bus, [asker], [first]) as (_, runner):
            async with asker.job("doer", name="wait", timeout=20) as j:
                await first.has_begun()
                await runner.remove_workers("doer", timeout=0.1)
                assert not j._group.is_done
                await runner.add_workers(second)
            assert {"by": "doer"} == j.response
            assert [j.job_id] == second.begun

    run(main())


def test_replicas_share_stored_jobs(make_keeping_bus):
    """Jobs for the name of replicas are shared; each says who answered."""

    async def main():
        asker, one, two = Asker(), Doer("doer.1", max_concurrency=1), Doer("doer.2")
        async with hosted(make_keeping_bus, [asker], [one], [two]):
            one.gate.set()
            two.gate.set()
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(ask(asker, "doer", "wait", timeout=20)) for _ in range(20)
                ]
            assert {"doer.1", "doer.2"} >= {task.result().worker for task in asked}
            assert 20 == len(one.begun) + len(two.begun)

    run(main())


def test_released_hook_settles_late(make_keeping_bus):
    """A message whose hook lets the next in is settled when the hook is over; if it raised, again."""

    class Lender(NotingDoer):
        async def on_bus_message(self, message):
            if isinstance(message, Note):
                self.notes.append(message.number)
                with release_lane():
                    await self.gate.wait()
                if self.notes.count(message.number) == 1:
                    raise LookupError("not yet")

    async def main():
        asker, lender = Asker(), Lender(interleave=True)
        async with hosted(make_keeping_bus, [asker], [lender]) as (runner, _):
            await asker.send_bus_message(Note(source="asker", target="doer", number=1))
            await asker.send_bus_message(Note(source="asker", target="doer", number=2))
            await until(lambda: lender.notes == [1, 2])
            reports = {one.name: one for one in await runner.bus.queues.stats()}
            assert 2 == reports["doer"].in_flight
            lender.gate.set()
            await until(lambda: len(lender.notes) == 4)
            assert [1, 1, 2, 2] == sorted(lender.notes)
            await nothing_kept(runner, "doer")

    run(main())


@pytest.mark.parametrize("kind", ["panic", "half a character"])
def test_any_error_counts_as_an_attempt(make_keeping_bus, kind, caplog):
    """Whatever a handler raises, the job is retried, answered in the end, and dead-lettered."""
    caplog.set_level(logging.CRITICAL + 1, "pbus")  # a test runner cannot pass half characters on

    class Unlucky(Doer):
        @job(name="mishap")
        async def mishap(self, request):
            raise MISHAPS[kind]

    async def main():
        asker, doer = Asker(), Unlucky(max_concurrency=1)

        def make(**options):
            return make_keeping_bus(queue_options={"max_attempts": 2}, **options)

        async with hosted(make, [asker], [doer]) as (runner, _):
            with pytest.raises(JobFailedError):
                await ask(asker, "doer", "mishap", timeout=None)
            assert {"result": 1} == await ask(asker, "doer", "echo", payload={"value": 1})
            await nothing_kept(runner, "doer", "asker")
            (message,) = await runner.bus.queues.dead_letters("doer")
            assert message.reason.startswith(type(MISHAPS[kind]).__name__)

    run(main())


def test_stored_answer_outlives_a_late_cancel(make_keeping_bus):
    """A job whose handler's task is cancelled while it is answered is answered all the same."""

    async def main():
        asker, doer = Asker(), HastyDoer()
        async with hosted(make_keeping_bus, [asker], [doer]) as (runner, _):
            assert {"in": "time"} == await ask(asker, "doer", "hasty", timeout=None)
            await nothing_kept(runner, "doer", "asker")

    run(main())


def test_job_answered_at_the_stop_is_not_done_again(make_keeping_bus):
    """A job whose answer is still being stored when its worker ends is left to no other."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_keeping_bus, [asker], [doer]) as (runner, host):
            storing, may_store, begin_send = asyncio.Event(), asyncio.Event(), host.bus.begin_send

            async def send_late(message):
                if isinstance(message, BusJobResponseMessage):
                    storing.set()
                    await may_store.wait()
                rest = begin_send(message)
                return True if rest is None else await rest

            host.bus.begin_send = send_late
            await asker.request_job("doer", name="wait", timeout=None)
            await doer.has_begun()
            doer.gate.set()
            await happens(storing)
            await host.cancel("the worker ends")
            await until(lambda: not doer._waiting_handlers)
            may_store.set()
            await until(lambda: asker.told_of("completed"))
            await nothing_kept(runner, "doer", "asker")

    run(main())
