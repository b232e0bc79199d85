"""Jobs on every backend: deadlines and cancels; each job ends once, and its requester learns how."""

import asyncio

import pytest

from pbus.errors import (
    JobCancelledError,
    JobError,
    JobTimeoutError,
    JobWorkerLostError,
)
from pbus.handlers import job
from pbus.jobs import JobGroupParams, JobParams
from pbus.jobs.executor import executor
from pbus.messages import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    JobStatus,
)
from pbus.workers.base_worker import BaseWorker
from support.job_helpers import Asker, Doer, ask, hosted, leftovers
from support.waiting import run, until


def test_w09_unknown_worker_is_job_error(make_bus):
    """A job for a missing worker raised the wrong error, or waited for ever."""

    async def main():
        asker = Asker()
        async with hosted(make_bus, [asker]):
            with pytest.raises(JobTimeoutError, match="waiting for missing to be ready") as caught:
                await ask(asker, "missing", "echo", timeout=0.2)
            assert isinstance(caught.value, JobError)
            assert {"missing": "open"} == caught.value.statuses
            assert [0] == leftovers(asker)

    run(main())


def test_w09_one_deadline_for_all(make_bus):
    """The timeout counted twice: for the wait until the worker was ready, and for the job."""

    async def main():
        asker, late = Asker(), Doer("late")
        async with hosted(make_bus, [asker]) as (runner,):
            began = asyncio.get_running_loop().time()
            asking = asyncio.create_task(ask(asker, "late", "wait", timeout=60.0))
            await until(lambda: asker.job_groups)
            opened = asyncio.get_running_loop().time()
            await asyncio.sleep(0.1)  # the time that is to count
            await runner.add_workers(late)
            await late.has_begun()
            (pending,) = asker._job_client.pending_jobs()
            assert began + 60.0 <= pending.deadline == pending.timer.when() <= opened + 60.0
            asker._job_client._expire(pending)  # as its timer does
            with pytest.raises(JobTimeoutError, match="waiting for the answer of late"):
                await asking
            await until(lambda: late.ended == ["cancelled"])

    run(main())


def test_w09_empty_group_ends(make_bus):
    """An empty group waited for ever."""

    async def main():
        asker = Asker()
        async with hosted(make_bus, [asker]):
            async with asker.job_group(timeout=None) as group:
                assert [] == [event async for event in group]
            assert {} == group.responses

    run(main())


def test_timeout_cancels_the_handler(make_bus):
    """When time is up the requester is told, and the worker stops working."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            limit_s = 0.2
            while not doer.begun:  # a request that comes too late is not begun
                with pytest.raises(JobTimeoutError):
                    await ask(asker, "doer", "wait", timeout=limit_s)
                limit_s *= 2
            await until(lambda: leftovers(asker, doer) == [0, 0])
            await until(lambda: ["cancelled"] * len(doer.begun) == doer.ended)

    run(main())


def test_job_waits_for_late_worker(make_bus):
    """A job for a worker that is not there yet is asked once it is ready."""

    async def main():
        asker = Asker()
        async with hosted(make_bus, [asker]) as (runner,):
            asking = asyncio.create_task(ask(asker, "doer", "echo", payload={"value": 1}))
            await until(lambda: asker.job_groups)
            await runner.add_workers(Doer())
            assert {"result": 1} == await asking

    run(main())


def test_w10_stopping_worker_is_no_success(make_forgetting_bus):
    """A job whose worker stopped looked like a success with an empty response."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_forgetting_bus, [asker], [doer]):
            with pytest.raises(JobWorkerLostError, match="stopped"):
                async with asker.job("doer", name="wait"):
                    await doer.has_begun()
                    doer.request_stop(drain=False)

    run(main())


def test_w10_cancelled_answer_is_no_success(make_bus):
    """An answer with status cancelled ended the job without an error."""

    class Refuser(BaseWorker):
        @job(name="no")
        async def refuse(self, request):
            await self.send_job_response(
                request.job_id, {"reason": "not today"}, status=JobStatus.CANCELLED
            )

    async def main():
        asker = Asker()
        async with hosted(make_bus, [asker], [Refuser("refuser")]):
            with pytest.raises(JobCancelledError, match="not today"):
                await ask(asker, "refuser", "no")

    run(main())


def test_w10_cancelled_group_is_no_success(make_bus):
    """A group cancelled without a reason ended normally, with an empty response."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            with pytest.raises(JobCancelledError, match="no reason given"):
                async with asker.job("doer", name="wait") as j:
                    await doer.has_begun()
                    await asker.cancel_job_group(j.job_id)
            await until(lambda: doer.ended == ["cancelled"])

    run(main())


def test_w10_responses_keep_status(make_bus):
    """A group that went on after errors did not tell who had failed."""

    async def main():
        asker, good, bad = Asker(), Doer("good"), BaseWorker("bad")
        params = JobGroupParams(name="echo", payload={"value": 1}, cancel_on_error=False)
        async with hosted(make_bus, [asker], [good, bad]):
            async with asker.job_group("good", "bad", params=params) as group:
                pass
            statuses = {name: response.status for name, response in group.responses.items()}
            assert {"good": JobStatus.COMPLETED, "bad": JobStatus.ERROR} == statuses
            assert {"result": 1} == group.responses["good"]
            assert {"good": "completed", "bad": "error"} == group.statuses

    run(main())


def test_w19_cancel_overtakes_request(make_bus):
    """A job cancelled right behind its request ran to its end all the same."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]) as (runner, _):
            request = BusJobRequestMessage(
                source="asker", target="doer", job_id="j-1", job_name="wait"
            )
            await runner.bus.send(BusJobCancelMessage(source="asker", target="doer", job_id="j-1"))
            await until(lambda: len(doer._job_executor._pending_cancels) == 1)
            await runner.bus.send(request)
            await until(lambda: len(doer._job_executor._pending_cancels) == 0)
            with pytest.raises(ZeroDivisionError):
                async with asker.job("doer", name="wait"):
                    1 / 0  # noqa: B018
            await ask(asker, "doer", "echo")
            await until(lambda: not doer.active_jobs)
            assert "done" not in doer.ended
            assert "j-1" not in doer.begun

    run(main())


def test_w21_cancelled_caller_cancels_job(make_bus):
    """A caller that was cancelled while it waited left its job running."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            asking = asyncio.create_task(ask(asker, "doer", "wait"))
            await doer.has_begun()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: doer.ended == ["cancelled"])
            await until(lambda: leftovers(asker, doer) == [0, 0])

    run(main())


def test_body_error_cancels_job(make_bus):
    """Leaving the block by an exception cancels the job and lets the exception pass."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            with pytest.raises(KeyError):
                async with asker.job("doer", name="wait"):
                    await doer.has_begun()
                    raise KeyError
            await until(lambda: doer.ended == ["cancelled"])

    run(main())


def test_w22_swallowed_cancel_blocks_none(make_bus, monkeypatch):
    """A handler that ignored its cancellation kept the whole worker waiting."""

    class Stubborn(Doer):
        @job(name="stubborn")
        async def stubborn(self, request):
            self.begun.append(request.job_id)
            while not self.gate.is_set():
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.ended.append(request.job_id)
            return {"late": True}

    async def main():
        asker, worker = Asker(), Stubborn()
        async with hosted(make_bus, [asker], [worker]):
            monkeypatch.setattr(executor, "CANCEL_GRACE_S", 60.0)
            first = await ignores_cancel(asker, worker)
            assert {} == await ask(asker, "doer", "echo")
            assert [first] == [*worker.active_jobs]  # no task waited for it
            monkeypatch.setattr(executor, "CANCEL_GRACE_S", 0.05)
            await ignores_cancel(asker, worker)
            await until(lambda: [first] == [*worker.active_jobs])  # answered for the handler
            worker.gate.set()

    async def ignores_cancel(asker, worker):
        job_id = await asker.request_job("doer", name="stubborn")
        await until(lambda: job_id in worker.begun)
        await asker.cancel_job_group(job_id)
        await until(lambda: job_id in worker.ended)
        return job_id

    run(main())


def test_w22_answer_while_cancelled(make_bus):
    """A handler that answered on its way out of a cancellation got an error for it."""

    class Polite(Doer):
        @job(name="polite")
        async def polite(self, request):
            self.begun.append(request.job_id)
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                await self.send_job_response(request.job_id, {"half": "done"})
                self.ended.append("answered")
                raise

    async def main():
        asker, worker = Asker(), Polite()
        async with hosted(make_bus, [asker], [worker]):
            job_id = await asker.request_job("doer", name="polite")
            await worker.has_begun()
            await asker.cancel_job_group(job_id, reason="changed my mind")
            await until(lambda: worker.ended == ["answered"])
            await until(lambda: leftovers(asker, worker) == [0, 0])
            await until(lambda: asker.told_of("error"))
            assert [JobStatus.CANCELLED] == [m.status for m in asker.told_of("error")]

    run(main())


def test_cancelled_hook_and_answer(make_bus):
    """The worker's hook learns of a cancellation after its handler ended."""

    class Told(Doer):
        async def on_job_cancelled(self, message):
            self.ended.append(message.reason)

    async def main():
        asker, worker = Asker(), Told()
        async with hosted(make_bus, [asker], [worker]):
            job_id = await asker.request_job("doer", name="wait")
            await worker.has_begun()
            assert await asker.request_cancel_job_group(job_id, reason="enough")
            assert not await asker.request_cancel_job_group(job_id)
            await until(lambda: worker.ended == ["cancelled", "enough"])

    run(main())


def test_uncancellable_job_goes_on(make_bus):
    """request_cancel_job_group leaves a job alone that says it is not cancellable."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            params = JobParams(name="wait", cancellable=False)
            async with asker.job("doer", params=params) as j:
                assert not await asker.request_cancel_job_group(j.job_id)
                doer.gate.set()
            assert {"by": "doer"} == j.response

    run(main())
