"""Jobs of several workers on every backend: groups, and the events of their members."""

import asyncio

import pytest

from pbus.errors import (
    JobFailedError,
    JobStateError,
)
from pbus.jobs import JobEvent, JobGroupParams
from pbus.jobs.requester import pending
from pbus.messages import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    JobStatus,
)
from pbus.workers.base_worker import BaseWorker
from support.job_helpers import Asker, Doer, ask, hosted, leftovers
from support.waiting import run, until


def test_events_then_response(make_bus):
    """Iterating gives every update, and ends with the answer."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            async with asker.job("doer", name="steps", payload={"count": 20}) as j:
                events = [event async for event in j]
            assert [JobEvent("update", {"number": n}) for n in range(20)] == events
            assert ({"count": 20}, 0) == (j.response, j.missed_events)

    run(main())


def test_stream_end_is_response(make_bus):
    """The end of a stream is an event, and its data the response."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            async with asker.job("doer", name="stream", payload={"count": 2}) as j:
                kinds = [event.type async for event in j]
            assert ["stream_start", "stream_data", "stream_data", "stream_end"] == kinds
            assert {"total": 2} == j.response
            assert 1 == len(asker.told_of("stream_end"))

    run(main())


def test_w11_group_sees_all_events(make_bus):
    """Events that came before the reader was attached were lost."""
    workers, updates = 16, 25

    async def main():
        asker = Asker()
        doers = [Doer(f"doer{n}") for n in range(workers)]
        names = [doer.name for doer in doers]
        async with hosted(make_bus, [asker], doers[::2], doers[1::2]):
            options = {"name": "steps", "payload": {"count": updates}}
            async with asker.job_group(*names, **options) as group:
                seen = {name: [] for name in names}
                async for event in group:
                    seen[event.worker_name].append(event.data["number"])
            assert {name: list(range(updates)) for name in names} == seen
            assert 0 == group.missed_events

    run(main())


def test_w11_failed_group_never_hangs(make_bus, monkeypatch):
    """A group whose first worker failed at once was iterated for ever, and others went on."""
    monkeypatch.setattr(pending, "EVENT_GRACE_S", 3600.0)  # nor does it wait for lost events

    async def main():
        asker, bad = Asker(), BaseWorker("bad")
        doers = [Doer(f"doer{n}") for n in range(20)]
        names = ["bad", *(doer.name for doer in doers)]
        async with hosted(make_bus, [asker], [bad], doers):
            with pytest.raises(JobFailedError) as caught:
                async with asker.job_group(*names, name="wait", timeout=None) as group:
                    assert [] == [event async for event in group]
            assert "error" == caught.value.statuses["bad"]
            await until(lambda: not any(doer.active_jobs for doer in doers))
            assert not any("done" in doer.ended for doer in doers)

    run(main())


def test_w18_urgent_answer_hides_nothing(make_bus):
    """An urgent answer made the requester miss the stream that was sent before it."""

    async def main():
        asker, doer = Asker(), Doer()
        payload = {"count": 50, "urgent": True}
        async with hosted(make_bus, [asker], [doer]):
            async with asker.job("doer", name="stream", payload=payload) as j:
                events = [event async for event in j]
            numbers = [event.data["number"] for event in events[1:]]
            assert ("stream_start", list(range(50))) == (events[0].type, numbers)
            assert {"urgent": True} == j.response
            await until(lambda: leftovers(asker, doer) == [0, 0])

    run(main())


def test_update_on_request(make_bus):
    """The requester may ask how far a job is."""

    class Busy(Doer):
        async def on_job_update_requested(self, message):
            await self.send_job_update(message.job_id, {"percent": 40})

    async def main():
        asker, worker = Asker(), Busy()
        async with hosted(make_bus, [asker], [worker]):
            async with asker.job("doer", name="wait") as j:
                await worker.has_begun()
                await asker.request_job_update(j.job_id, "doer")
                event = await anext(j)
                worker.gate.set()
            assert JobEvent("update", {"percent": 40}) == event
            with pytest.raises(JobStateError):
                await asker.request_job_update(j.job_id, "doer")

    run(main())


def test_group_collects_all_responses(make_bus):
    """A group completes when all have answered; its hook is told once."""

    async def main():
        asker, doers = Asker(), [Doer(f"doer{n}") for n in range(3)]
        names = [doer.name for doer in doers]
        async with hosted(make_bus, [asker], doers):
            for doer in doers:
                doer.gate.set()
            async with asker.job_group(*names, name="wait") as group:
                pass
            assert {name: {"by": name} for name in names} == group.responses
            await until(lambda: asker.told_of("completed"))
            (result,) = asker.told_of("completed")
            assert (group.job_id, group.responses) == (result.job_id, result.responses)
            assert 3 == len(asker.told_of("response"))

    run(main())


def test_group_error_cancels_others(make_bus):
    """With cancel_on_error, one failure ends the group and cancels the rest."""

    async def main():
        asker, slow, bad = Asker(), Doer("slow"), BaseWorker("bad")
        async with hosted(make_bus, [asker], [slow, bad]):
            with pytest.raises(JobFailedError) as caught:
                async with asker.job_group("slow", "bad", name="wait"):
                    pass
            assert {"slow": "open", "bad": "error"} == caught.value.statuses
            await until(lambda: not slow.active_jobs)
            await until(lambda: asker.told_of("error"))
            assert ["bad"] == [message.source for message in asker.told_of("error")]
            assert [] == asker.told_of("completed")

    run(main())


def test_w40_same_worker_twice(make_bus):
    """A worker named twice in a group did the job twice, and its second answer raised."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            doer.gate.set()
            async with asker.job_group("doer", "doer", name="wait") as group:
                pass
            assert (1, {"doer": {"by": "doer"}}) == (len(doer.begun), group.responses)

    run(main())


def test_same_request_twice(make_bus):
    """A request that comes twice is obeyed once."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]) as (runner, _):
            request = BusJobRequestMessage(
                source="asker", target="doer", job_id="j-1", job_name="wait"
            )
            await runner.bus.send(request)
            await runner.bus.send(request)
            await ask(asker, "doer", "echo")
            assert ["j-1"] == doer.begun

    run(main())


def test_request_group_tells_hooks(make_bus):
    """A requester that does not wait learns of the end by one hook."""

    async def main():
        asker, doers = Asker(), [Doer("one"), Doer("two")]
        async with hosted(make_bus, [asker], doers):
            done = await asker.request_job_group("one", "two", name="echo")
            failed = await asker.request_job("one", name="fail")
            late = await asker.request_job("two", name="wait", timeout=0.2)
            await until(lambda: len(asker.told_of("error")) == 2)
            await until(lambda: asker.told_of("completed"))
            assert [done] == [result.job_id for result in asker.told_of("completed")]
            errors = {message.job_id: message for message in asker.told_of("error")}
            assert {failed, late} == set(errors)
            assert "JobTimeoutError" == errors[late].response["type"]
            await until(lambda: leftovers(asker) == [0])

    run(main())


def test_created_group_can_be_awaited(make_bus):
    """create_job_group_and_request_job gives the group itself."""

    async def main():
        asker = Asker()
        async with hosted(make_bus, [asker], [Doer("one"), Doer("two")]):
            params = JobGroupParams(name="echo", payload={"value": 1})
            group = await asker.create_job_group_and_request_job(["one", "two"], params=params)
            await group.wait()
            assert {"one": {"result": 1}, "two": {"result": 1}} == group.responses

    run(main())


def test_w39_raising_hooks_lose_nothing(make_bus):
    """A hook that raised kept its job from ever ending."""

    class Clumsy(BaseWorker):
        async def on_job_response(self, message):
            raise ValueError("clumsy")

        async def on_job_completed(self, result):
            raise ValueError("clumsy")

        async def on_job_error(self, message):
            raise ValueError("clumsy")

        async def on_job_update(self, message):
            raise ValueError("clumsy")

    async def main():
        asker = Clumsy("asker")
        async with hosted(make_bus, [asker], [Doer()]):
            options = {"name": "steps", "payload": {"count": 3}, "timeout": 30}
            async with asker.job("doer", **options) as j:
                assert 3 == len([event async for event in j])
            assert {"count": 3} == j.response
            with pytest.raises(JobFailedError):
                await ask(asker, "doer", "fail", timeout=30)
            assert [0] == leftovers(asker)

    run(main())


def test_w42_strangers_answer_is_refused(make_bus):
    """Anybody who knew a job's id could answer it."""

    async def main():
        asker, doer, stranger = Asker(), Doer(), BaseWorker("stranger")
        async with hosted(make_bus, [asker], [doer, stranger]):
            async with asker.job("doer", name="wait") as j:
                await doer.has_begun()
                await stranger.send_bus_message(
                    BusJobResponseMessage(
                        source="stranger",
                        target="asker",
                        job_id=j.job_id,
                        status=JobStatus.COMPLETED,
                        response={"forged": True},
                    )
                )
                await ask(asker, "doer", "echo")  # behind the forged answer
                doer.gate.set()
            assert {"by": "doer"} == j.response

    run(main())


def test_w42_strangers_cancel_is_refused(make_bus):
    """Anybody who knew a job's id could cancel it."""

    async def main():
        asker, doer, stranger = Asker(), Doer(), BaseWorker("stranger")
        async with hosted(make_bus, [asker], [doer, stranger]):
            async with asker.job("doer", name="wait") as j:
                await doer.has_begun()
                cancel = {"source": "stranger", "target": "doer", "job_id": j.job_id}
                await stranger.send_bus_message(BusJobCancelMessage(**cancel))
                await ask(stranger, "doer", "echo")
                doer.gate.set()
            assert ["done"] == doer.ended

    run(main())


def test_w27_jobs_leave_nothing(make_bus, backend):
    """Every job left a watcher in the registry, and jobs became slower and slower."""

    async def main():
        asker, doer = BaseWorker("asker"), Doer()
        async with hosted(make_bus, [asker], [doer]) as (runner, _):
            await ask(asker, "doer", "echo")
            tasks, watches = len(asyncio.all_tasks()), count_watches(runner)
            for _ in range(10 if backend == "redis-streams" else 50):
                async with asyncio.TaskGroup() as group:
                    for _ in range(100):
                        group.create_task(ask(asker, "doer", "echo"))
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            assert watches == count_watches(runner)
            assert [0, 0] == leftovers(asker, doer)
            assert not asker._job_client._pending._by_key
            assert not asker._replica_choice._open
            assert 0 == len(doer._job_executor._pending_cancels)

    run(main())


def count_watches(runner):
    watches = runner.registry._watches
    return len(watches.ready.all()) + len(watches.lost.all())
