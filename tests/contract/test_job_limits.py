"""Jobs that wait: for a place, for a turn, for a requester who will never ask for the answer."""

import asyncio

import pytest

from pbus.errors import JobCancelledError, JobFailedError, JobTimeoutError
from pbus.handlers import PENDING, job
from pbus.jobs import JobParams
from pbus.jobs.executor import abandoned
from pbus.jobs.listing import (
    BusJobCancelRequestMessage,
    BusJobCancelResponseMessage,
    BusJobsRequestMessage,
    BusJobsResponseMessage,
    JobProgress,
    merge_jobs,
)
from pbus.messages import BusJobRequestMessage, BusJobResponseMessage
from pbus.workers.base_worker import BaseWorker
from support.job_helpers import Asker, Doer, Note, ask, hosted, leftovers
from support.waiting import PATIENCE_S, run, until


class Counter(Doer):
    """Counts how many of its jobs run at once, and the hook's cancels."""

    def __init__(self, name="doer", **options):
        super().__init__(name, **options)
        self.order = []
        self.running = self.most = 0
        self.cancelled = []

    @job(name="step")
    async def step(self, request: BusJobRequestMessage) -> None:
        self.order.append(request.payload["n"])
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1

    async def on_job_cancelled(self, message):
        self.cancelled.append(message.job_id)


async def step(asker, n, **options):
    """Ask for one step, and do not wait for it."""
    return await asker.request_job("doer", name="step", payload={"n": n}, **options)


def test_only_so_many_run(make_bus):
    """With max_concurrency the others wait, in order, and all are done."""

    async def main():
        asker, doer = Asker(), Counter(max_concurrency=3)
        async with hosted(make_bus, [asker], [doer]):
            for n in range(12):
                await step(asker, n)
            await until(lambda: len(doer.active_jobs) == 12 and len(doer.order) >= 3)
            assert [0, 1, 2] == doer.order
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 12)
            assert (list(range(12)), 3) == (doer.order, doer.most)
            assert [0, 0] == leftovers(asker, doer)

    run(main())


def test_waiting_job_is_cancelled(make_bus):
    """A job that waits for a place never begins once it is cancelled."""

    async def main():
        asker, doer = Asker(), Counter(max_concurrency=1)
        async with hosted(make_bus, [asker], [doer]):
            await step(asker, 0)
            second = await step(asker, 1)
            await until(lambda: len(doer.active_jobs) == 2)
            await asker.cancel_job_group(second)
            await until(lambda: doer.cancelled == [second])
            await until(lambda: len(doer.active_jobs) == 1)
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 1)
            assert [0] == doer.order

    run(main())


def test_waiting_jobs_count_as_taken(make_forgetting_bus):
    """Jobs that wait are among max_queued_jobs."""

    async def main():
        asker, doer = Asker(), Counter(max_concurrency=1, max_queued_jobs=3)
        async with hosted(make_forgetting_bus, [asker], [doer]):
            for n in range(3):
                await step(asker, n)
            await until(lambda: len(doer.active_jobs) == 3)
            with pytest.raises(JobFailedError, match="busy with 3 jobs"):
                await ask(asker, "doer", "step", payload={"n": 3})
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 3)

    run(main())


def test_stopping_worker_ends_waiting_jobs(make_forgetting_bus):
    """Those that wait for a place end with the worker, those that run are waited for."""

    async def main():
        asker, doer = Asker(), Counter(max_concurrency=1)
        async with hosted(make_forgetting_bus, [asker], [doer]):
            for n in range(3):
                await step(asker, n)
            await until(lambda: len(doer.active_jobs) == 3 and doer.order)
            doer.request_stop(drain=False)
            await until(lambda: len(asker.told_of("error")) == 3)
            assert [0] == doer.order

    run(main())


def test_draining_worker_does_waiting_jobs(make_bus):
    """What was taken in is done before the worker ends."""

    async def main():
        asker, doer = Asker(), Counter(max_concurrency=1)
        async with hosted(make_bus, [asker], [doer]):
            for n in range(3):
                await step(asker, n)
            await until(lambda: len(doer.active_jobs) == 3)
            doer.request_stop(drain=True)
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 3)

    run(main())


def test_pending_job_keeps_its_place(make_bus):
    """A job to be answered later runs until it is answered."""

    class Later(BaseWorker):
        def __init__(self):
            super().__init__("later", max_concurrency=1)
            self.asked = []

        @job(name="later")
        async def later(self, request):
            self.asked.append(request.job_id)
            return PENDING

    async def main():
        asker, later = Asker(), Later()
        async with hosted(make_bus, [asker], [later]):
            for _ in range(2):
                await asker.request_job("later", name="later")
            await until(lambda: len(later.active_jobs) == 2)
            for n in range(2):
                await until(lambda n=n: len(later.asked) == n + 1)
                await later.send_job_response(later.asked[n])
            await until(lambda: len(asker.told_of("completed")) == 2)

    run(main())


def test_early_answer_keeps_the_place(make_bus):
    """A handler that goes on after its answer still runs."""

    class Tidy(Counter):
        @job(name="tidy")
        async def tidy(self, request):
            await self.send_job_response(request.job_id)
            await self.step(request)

    async def main():
        asker, doer = Asker(), Tidy(max_concurrency=1)
        async with hosted(make_bus, [asker], [doer]):
            for n in range(2):
                await asker.request_job("doer", name="tidy", payload={"n": n})
            await until(lambda: len(asker.told_of("completed")) == 1)
            await until(lambda: doer.running == 1)
            assert [0] == doer.order
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 2)
            assert 1 == doer.most

    run(main())


def test_high_priority_goes_first(make_bus):
    """Of the jobs that wait for a place those of high priority are done first."""

    async def main():
        asker, doer = Asker(), Counter(max_concurrency=1)
        async with hosted(make_bus, [asker], [doer]):
            for n in range(3):
                await step(asker, n)
            await until(lambda: len(doer.active_jobs) == 3)
            for n in range(3, 5):
                await step(asker, n, priority="high")
            await until(lambda: len(doer.active_jobs) == 5)
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 5)
            assert [0, 3, 4, 1, 2] == doer.order

    run(main())


def test_high_priority_overtakes_data(make_bus):
    """A job of high priority is done while a data handler is in progress and others wait."""

    class Engaged(Counter):
        def __init__(self):
            super().__init__()
            self.notes = []
            self.release = asyncio.Event()

        async def on_bus_message(self, message):
            if isinstance(message, Note):
                self.notes.append(message.number)
                await self.release.wait()

    async def main():
        asker, doer = Asker(), Engaged()
        doer.gate.set()
        async with hosted(make_bus, [asker], [doer]):
            await asker.send_bus_message(Note(source="asker", target="doer", number=1))
            await until(lambda: doer.notes == [1])
            normal = asyncio.create_task(ask(asker, "doer", "step", payload={"n": 1}))
            # That a worker is ready may come late, too: by another way than what is sent to it.
            await until(lambda: doer.bus.stats("doer").queued)
            urgent = JobParams(name="step", payload={"n": 2}, priority="high", timeout=20)
            async with asker.job("doer", params=urgent) as j:
                pass
            assert ({}, [2]) == (j.response, doer.order)
            doer.release.set()
            await normal
            assert [2, 1] == doer.order

    run(main())


def test_cancel_follows_urgent_request(make_bus):
    """A cancel right behind a request of high priority finds it."""

    async def main():
        asker, doer = Asker(), Counter()
        async with hosted(make_bus, [asker], [doer]):
            for n in range(20):
                with pytest.raises(ZeroDivisionError):
                    async with asker.job("doer", name="step", payload={"n": n}, priority="high"):
                        1 / 0  # noqa: B018
            await until(lambda: not doer.active_jobs and len(doer.cancelled) == 20)
            await until(lambda: doer.running == 0)
            assert [0, 0] == leftovers(asker, doer)

    run(main())


def test_unknown_priority_is_refused():
    """A word that means nothing is an error where it is written."""
    with pytest.raises(ValueError, match="normal, high, not 'urgent'"):
        JobParams(priority="urgent")


def test_no_places_is_refused():
    """A worker that could never run a job is a mistake."""
    with pytest.raises(ValueError, match="at least 1"):
        BaseWorker("doer", max_concurrency=0)


def test_lost_requester_cancels_jobs(make_forgetting_bus):
    """A worker goes on with an abandoned job: its requester died."""

    async def main():
        asker, other, doer = Asker(), Asker("other"), Doer()
        async with hosted(make_forgetting_bus, [asker], [other], [doer]) as (runner, *_):
            await asker.request_job("doer", name="wait", timeout=None)
            await other.request_job("doer", name="wait", timeout=None)
            await doer.has_begun(2)
            await runner.registry.unregister("asker", "killed by a test")
            await until(lambda: doer.ended == ["cancelled"])
            await until(lambda: len(doer.active_jobs) == 1)
            assert ["other"] == [request.source for request in doer.active_jobs.values()]
            doer.gate.set()
            await until(lambda: other.told_of("completed"))

    run(main())


def test_lost_child_requester_cancels_jobs(make_forgetting_bus):
    """Children have no lease: they are lost when no worker of their runner is left."""

    async def main():
        parent, child, doer = Asker("parent"), Asker("child"), Doer()
        async with hosted(make_forgetting_bus, [parent], [doer]) as (runner, _):
            await parent.add_workers(child)
            await runner.registry.wait_ready("child", PATIENCE_S)
            await child.request_job("doer", name="wait", timeout=None)
            await doer.has_begun()
            await runner.registry.unregister("parent", "killed by a test")
            await until(lambda: doer.ended == ["cancelled"])

    run(main())


def test_overdue_job_is_given_up(make_forgetting_bus, monkeypatch):
    """A requester without a lease that disappears cannot keep a worker busy for ever."""
    monkeypatch.setattr(abandoned, "OVERDUE_S", 0.1)
    monkeypatch.setattr(abandoned, "_SWEEP_S", 0.05)

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_forgetting_bus, [asker], [doer]):
            request = BusJobRequestMessage(
                source="cli", target="doer", job_id="j-1", job_name="wait", time=5.0, deadline=5.2
            )
            await asker.send_bus_message(request)
            await doer.has_begun()
            await until(lambda: doer.ended == ["cancelled"])
            await until(lambda: not doer.active_jobs)

    run(main())


def test_own_timeout_needs_no_sweep(make_bus):
    """A live requester says itself that its time is up."""

    async def main():
        asker, doer = Asker(), Doer(max_concurrency=1)
        async with hosted(make_bus, [asker], [doer]):
            await asker.request_job("doer", name="wait")
            await doer.has_begun()
            with pytest.raises(JobTimeoutError):
                await ask(asker, "doer", "wait", timeout=0.2)
            await until(lambda: len(doer.active_jobs) == 1)
            doer.gate.set()
            await until(lambda: asker.told_of("completed"))

    run(main())


class Clerk(Asker):
    """Asks runners for open jobs, and requesters to cancel them."""

    def __init__(self):
        super().__init__("clerk")
        self.answers = []
        self.outcomes = []

    async def on_bus_message(self, message):
        if isinstance(message, BusJobsResponseMessage):
            self.answers.append(message)
        if isinstance(message, BusJobCancelResponseMessage):
            self.outcomes.append(message.outcome)

    async def open_count(self, count):
        """The open jobs that so many runners tell of."""
        self.answers.clear()
        await self.send_bus_message(BusJobsRequestMessage(source="clerk"))
        await until(lambda: len({answer.runner for answer in self.answers}) == count)
        return merge_jobs(answer.jobs for answer in self.answers)

    async def cancel_for(self, requester, job_id):
        """Have a job cancelled; what became of it."""
        before = len(self.outcomes)
        await self.send_bus_message(
            BusJobCancelRequestMessage(source="clerk", target=requester, job_id=job_id)
        )
        await until(lambda: len(self.outcomes) > before)
        return self.outcomes[-1]


def test_open_jobs_are_told(make_bus):
    """All runners tell of open jobs, from both sides."""

    class Reporter(Counter):
        @job(name="report")
        async def report(self, request):
            await self.send_job_update(request.job_id, {"done": 1, "total": 4})
            self.begun.append(request.job_id)
            await self.gate.wait()

    async def main():
        clerk, asker, doer = Clerk(), Asker(), Reporter(max_concurrency=1)
        async with hosted(make_bus, [clerk], [asker], [doer]):
            assert [] == await clerk.open_count(3)
            first = await asker.request_job("doer", name="report", label="first", timeout=None)
            await doer.has_begun()
            second = await step(asker, 2)
            asking = asyncio.create_task(asker.request_job("nobody", name="x", timeout=30))
            await until(lambda: len(doer.active_jobs) == 2 and len(asker.job_groups) == 3)
            found = await clerk.open_count(3)
            facts = [(one.name, one.worker, one.state, one.label) for one in found]
            assert [
                ("report", "doer", "running", "first"),
                ("step", "doer", "queued", None),
                ("x", "nobody", "waiting", None),
            ] == facts
            assert [first, second] == [one.job_id for one in found[:2]]
            assert JobProgress(done=1, total=4, percent=25.0) == found[0].progress
            assert {"asker"} == {one.requester for one in found}
            asking.cancel()
            doer.gate.set()
            await until(lambda: not asker.job_groups)
            assert [] == await clerk.open_count(3)

    run(main())


def test_many_open_jobs_are_told(make_bus):
    """An answer of any length is told in parts."""

    async def main():
        clerk, asker, doer = Clerk(), Asker(), Counter(max_concurrency=1)
        async with hosted(make_bus, [clerk], [asker, doer]):
            for n in range(600):
                await step(asker, n)
            await until(lambda: len(doer.active_jobs) == 600)
            await clerk.open_count(2)
            await until(lambda: len(clerk.answers) == 3)
            assert 600 == len(merge_jobs(answer.jobs for answer in clerk.answers))
            assert {1, 2} == {answer.parts for answer in clerk.answers}
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 600)

    run(main())


def test_requester_cancels_for_others(make_bus):
    """Another worker may have a job cancelled, unless its requester forbids it."""

    async def main():
        clerk, asker, doer = Clerk(), Asker(), Counter()
        async with hosted(make_bus, [clerk], [asker], [doer]):
            mine = await step(asker, 1)
            kept = await step(asker, 2, cancellable=False)
            await until(lambda: len(doer.order) == 2)
            assert "cancelled" == await clerk.cancel_for("asker", mine)
            assert "not cancellable" == await clerk.cancel_for("asker", kept)
            assert "unknown" == await clerk.cancel_for("asker", mine)
            assert "unknown" == await clerk.cancel_for("asker", "no-such-job")
            await until(lambda: doer.cancelled == [mine])
            await until(lambda: asker.told_of("error"))
            (error,) = asker.told_of("error")
            assert JobCancelledError.__name__ == error.response["type"]
            doer.gate.set()
            await until(lambda: asker.told_of("completed"))

    run(main())


def test_cancelled_job_frees_its_place(make_bus):
    """When the job that runs is cancelled the next begins."""

    async def main():
        asker, doer = Asker(), Counter(max_concurrency=1)
        async with hosted(make_bus, [asker], [doer]):
            first = await step(asker, 1)
            await step(asker, 2)
            await until(lambda: len(doer.active_jobs) == 2 and doer.order == [1])
            await asker.cancel_job_group(first)
            await until(lambda: doer.order == [1, 2])
            doer.gate.set()
            await until(lambda: asker.told_of("completed"))

    run(main())


def test_response_has_one_address(make_bus):
    """Jobs of both priorities are answered alike."""

    async def main():
        asker, doer = Asker(), Counter()
        doer.gate.set()
        async with hosted(make_bus, [asker], [doer]):
            await step(asker, 1)
            await step(asker, 2, priority="high")
            await until(lambda: len(asker.told_of("response")) == 2)
            assert {BusJobResponseMessage} == {type(one) for one in asker.told_of("response")}

    run(main())
