"""Jobs done in the tasks that read a worker's lanes, and beside them: with the same effects."""

import asyncio

import pytest

from pbus.errors import JobFailedError, JobWorkerLostError
from pbus.handlers import job
from pbus.messages import BusJobRequestMessage
from support.job_helpers import Asker, Doer, ask, hosted, leftovers
from support.waiting import run, until


class Plain(Doer):
    """Its handlers begin in the lane's own task."""

    def __init__(self, **options):
        super().__init__(**options)
        self.tasks = []
        self.cleaned = asyncio.Event()

    @job(name="bounded")
    async def bounded(self, request: BusJobRequestMessage) -> str:
        self.tasks.append(asyncio.current_task())
        try:
            async with asyncio.timeout(0.05):
                await self.gate.wait()
        except TimeoutError:
            return "out of time"
        return "in time"

    @job(name="group")
    async def group(self, request: BusJobRequestMessage) -> list[int]:
        async def double(number):
            await asyncio.sleep(0)
            return 2 * number

        async with asyncio.TaskGroup() as tasks:
            doubled = [tasks.create_task(double(number)) for number in request.payload["of"]]
        return [task.result() for task in doubled]

    @job(name="broken group")
    async def broken_group(self, request: BusJobRequestMessage) -> None:
        async def fail():
            raise LookupError("no such book")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            await self.gate.wait()

    @job(name="tidy")
    async def tidy(self, request: BusJobRequestMessage) -> None:
        self.begun.append(request.job_id)
        try:
            await self.gate.wait()
        finally:
            await asyncio.sleep(0)  # cleaning up takes a while
            self.cleaned.set()


class Hooked(Plain):
    """A hook comes after the request is taken in, so its handlers run in tasks of their own."""

    def __init__(self):
        super().__init__()
        self.seen = []

    async def on_bus_message(self, message):
        self.seen.append(message)


class Limited(Plain):
    """Its jobs need places."""

    def __init__(self):
        super().__init__(max_concurrency=50)


@pytest.fixture(params=[Plain, Hooked, Limited])
def doer(request):
    """Three ways to begin a handler."""
    return request.param


def test_waiting_handler_leaves_lane(make_bus, doer):
    """Others are done while one waits, and it is done when it need not wait any more."""

    async def main():
        asker, worker = Asker(), doer()
        async with hosted(make_bus, [asker], [worker]):
            waiting = [asyncio.create_task(ask(asker, "doer", "wait")) for _ in range(3)]
            await worker.has_begun(3)
            for value in range(20):
                assert {"result": value} == await ask(
                    asker, "doer", "echo", payload={"value": value}
                )
            worker.gate.set()
            assert [{"by": "doer"}] * 3 == await asyncio.gather(*waiting)
            await until(lambda: leftovers(asker, worker) == [0, 0])

    run(main())


def test_timeout_hits_its_job_only(make_bus, doer):
    """A handler's own timeout ends what it awaits, and nothing that is handled later."""

    async def main():
        asker, worker = Asker(), doer()
        async with hosted(make_bus, [asker], [worker]):
            for value in range(3):
                assert {"result": "out of time"} == await ask(asker, "doer", "bounded")
                assert {"result": value} == await ask(
                    asker, "doer", "echo", payload={"value": value}
                )
            assert 3 == len(
                set(worker.tasks)
            )  # a handler that had to wait shares its task with no other

    run(main())


def test_task_groups_work(make_bus, doer):
    """A handler may use a task group; what a task of it raises is the job's error."""

    async def main():
        asker, worker = Asker(), doer()
        async with hosted(make_bus, [asker], [worker]):
            assert {"result": [2, 4]} == await ask(asker, "doer", "group", payload={"of": [1, 2]})
            with pytest.raises(JobFailedError, match="1 sub-exception"):
                await ask(asker, "doer", "broken group")
            assert {"result": 1} == await ask(asker, "doer", "echo", payload={"value": 1})

    run(main())


def test_cancel_hits_its_job_only(make_bus, doer):
    """A cancelled handler cleans up and ends; the others go on, and later ones begin."""

    async def main():
        asker, worker = Asker(), doer()
        async with hosted(make_bus, [asker], [worker]):
            other = asyncio.create_task(ask(asker, "doer", "wait"))
            await worker.has_begun()
            tidy = await asker.request_job("doer", name="tidy")
            await worker.has_begun(2)
            await asker.cancel_job_group(tidy)
            await until(worker.cleaned.is_set)
            assert {"result": 1} == await ask(asker, "doer", "echo", payload={"value": 1})
            worker.gate.set()
            assert {"by": "doer"} == await other
            await until(lambda: leftovers(asker, worker) == [0, 0])

    run(main())


def test_chain_of_jobs_ends(make_bus, doer):
    """A handler asks its own worker for a job, and that one for another, and so on."""

    class Chain(doer):
        @job(name="down")
        async def down(self, request: BusJobRequestMessage) -> dict[str, int]:
            left = request.payload["left"]
            if not left:
                return {"depth": 0}
            answer = await ask(self, "doer", "down", payload={"left": left - 1})
            return {"depth": answer["depth"] + 1}

    async def main():
        asker, worker = Asker(), Chain()
        async with hosted(make_bus, [asker], [worker]):
            assert {"depth": 10} == await ask(asker, "doer", "down", payload={"left": 10})

    run(main())


def test_own_hook_waits_for_no_job(make_bus):
    """on_bus_message learns of a request while its handler still waits."""

    async def main():
        asker, worker = Asker(), Hooked()
        async with hosted(make_bus, [asker], [worker]):
            waiting = asyncio.create_task(ask(asker, "doer", "wait"))
            await until(
                lambda: [True for each in worker.seen if isinstance(each, BusJobRequestMessage)]
            )
            await worker.has_begun()
            worker.gate.set()
            assert {"by": "doer"} == await waiting

    run(main())


def test_listeners_wait_for_no_job(make_bus):
    """So do handlers of the event."""

    async def main():
        asker, worker = Asker(), Plain()
        seen = []
        worker.add_event_handler("on_bus_message", lambda _, message: seen.append(message))
        async with hosted(make_bus, [asker], [worker]):
            waiting = asyncio.create_task(ask(asker, "doer", "wait"))
            await until(lambda: [True for each in seen if isinstance(each, BusJobRequestMessage)])
            await worker.has_begun()
            worker.gate.set()
            assert {"by": "doer"} == await waiting

    run(main())


def test_cancelled_worker_ends_jobs(make_forgetting_bus, doer):
    """Handlers that wait are cancelled with their worker, each once."""

    async def main():
        asker, worker = Asker(), doer()
        async with hosted(make_forgetting_bus, [asker], [worker]):
            asked = [asyncio.create_task(ask(asker, "doer", "wait")) for _ in range(3)]
            await worker.has_begun(3)
            worker.request_stop(drain=False)
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            assert [JobWorkerLostError] * 3 == [type(outcome) for outcome in outcomes]
            assert ["cancelled"] * 3 == worker.ended

    run(main())
