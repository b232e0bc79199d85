"""Jobs on every backend: what a handler does becomes the answer."""

import asyncio
import logging

import pytest

from pbus.errors import (
    JobCancelledError,
    JobFailedError,
    JobNotDoneError,
    JobStateError,
)
from pbus.handlers import PENDING, job
from pbus.jobs import JobParams
from pbus.messages import (
    JobStatus,
)
from pbus.runner import WorkerRunner
from pbus.workers.base_worker import BaseWorker
from support.faults import MISHAPS
from support.job_helpers import Asker, Doer, HastyDoer, Note, ask, hosted, leftovers
from support.waiting import PATIENCE_S, happens, run, until


@pytest.mark.parametrize(
    ("value", "response"),
    [({"a": 1}, {"a": 1}), (7, {"result": 7}), ([1, 2], {"result": [1, 2]}), (None, {})],
)
def test_handler_value_is_response(make_bus, value, response):
    """A dict is the response as it is, other values stand under "result", nothing is {}."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            answer = await ask(asker, "doer", "echo", payload={"value": value})
            assert response == answer
            assert JobStatus.COMPLETED == answer.status
            assert [0, 0] == leftovers(asker, doer)

    run(main())


def test_awaited_job_is_its_response(make_bus):
    """Without a block; a group is awaited for the responses by name."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            assert {"result": 7} == await asker.job("doer", "echo", {"value": 7})
            responses = await asker.job_group("doer", name="echo", payload={"value": 8})
            assert {"doer": {"result": 8}} == responses
            with pytest.raises(JobFailedError, match="no such book"):
                await asker.job("doer", name="fail")
            assert [0, 0] == leftovers(asker, doer)

    run(main())


def test_w08_raising_handler_answers(make_bus):
    """A handler that raised was never heard of again; now its error is the answer."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            with pytest.raises(JobFailedError, match="no such book") as caught:
                await ask(asker, "doer", "fail")
            response = caught.value.response
            assert ("no such book", "LookupError") == (response["error"], response["type"])
            assert "in fail" in response["traceback"]
            assert ("error", "doer") == (caught.value.status, caught.value.worker)
            assert [0, 0] == leftovers(asker, doer)

    run(main())


def test_w08_unknown_job_answers(make_bus):
    """A job that the worker does not have was dropped; now it says which it has."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            with pytest.raises(JobFailedError, match="did you mean 'echo'") as caught:
                await ask(asker, "doer", "ecko")
            assert "unknown job" == caught.value.response["reason"]

    run(main())


def test_w08_inactive_worker_answers(make_bus):
    """A job for an inactive worker was dropped; now it is refused at once."""

    async def main():
        asker, doer = Asker(), Doer(active=False)
        async with hosted(make_bus, [asker], [doer]):
            with pytest.raises(JobFailedError, match="not active") as caught:
                await ask(asker, "doer", "echo")
            assert "inactive" == caught.value.response["reason"]

    run(main())


def test_w08_silent_handler_answers(make_bus):
    """A handler that returned without answering kept the job open for ever."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            assert {} == await ask(asker, "doer", "echo")
            assert {} == doer.active_jobs

    run(main())


def test_unencodable_value_is_error(make_bus, backend):
    """What a handler returns and the wire cannot carry is an error that names the field."""
    if backend == "memory":
        pytest.skip("nothing is encoded within a process")

    class Setter(BaseWorker):
        @job(name="set")
        async def give_set(self, request):
            return {"words": {"a", "b"}}

    async def main():
        asker = Asker()
        async with hosted(make_bus, [asker], [Setter("setter")]):
            with pytest.raises(JobFailedError, match="words"):
                await ask(asker, "setter", "set")

    run(main())


def test_pending_job_is_answered_later(make_bus):
    """PENDING keeps a job open until it is answered, once."""

    class Later(Asker):
        @job(name="later")
        async def later(self, request):
            self.request = request
            return PENDING

    async def main():
        asker, worker = Asker(), Later("later")
        async with hosted(make_bus, [asker], [worker]):
            async with asker.job("later", name="later") as j:
                await until(lambda: hasattr(worker, "request"))
                with pytest.raises(JobNotDoneError):
                    j.response  # noqa: B018
                await worker.send_job_response(worker.request.job_id, {"at": "last"})
                with pytest.raises(JobStateError):
                    await worker.send_job_response(worker.request.job_id)
            assert {"at": "last"} == j.response

    run(main())


def test_request_hook_keeps_job_open(make_bus):
    """on_job_request does jobs without a handler, and answers when it likes."""

    class Hooked(BaseWorker):
        async def on_job_request(self, message):
            if message.job_name == "now":
                return {"name": message.job_name}
            if message.job_name == "self":
                await self.send_job_response(message.job_id, {"myself": True})
            return None

    async def main():
        asker, worker = Asker(), Hooked("hooked")
        async with hosted(make_bus, [asker], [worker]):
            assert {"name": "now"} == await ask(asker, "hooked", "now")
            assert {"myself": True} == await ask(asker, "hooked", "self")
            async with asker.job("hooked", name="never", timeout=30) as j:
                await until(lambda: worker.active_jobs)
                await worker.send_job_response(j.job_id, {"later": True})
            assert {"later": True} == j.response

    run(main())


def test_busy_worker_refuses(make_forgetting_bus):
    """More jobs than a worker takes are refused at once, not queued for ever."""

    async def main():
        asker, doer = Asker(), Doer(max_queued_jobs=2)
        async with hosted(make_forgetting_bus, [asker], [doer]):
            for _ in range(2):
                await asker.request_job("doer", name="wait")
            await doer.has_begun(2)
            with pytest.raises(JobFailedError, match="busy"):
                await ask(asker, "doer", "echo")
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 2)
            assert {} == await ask(asker, "doer", "echo")

    run(main())


def test_sequential_jobs_keep_order(make_bus):
    """Sequential jobs of one name run one after another; other names run beside them."""

    class Clerk(BaseWorker):
        def __init__(self):
            super().__init__("clerk")
            self.log = []
            self.gate = asyncio.Event()

        @job(name="file", sequential=True)
        async def file(self, request):
            self.log.append(("begin", request.payload["n"]))
            await self.gate.wait()
            self.log.append(("end", request.payload["n"]))

        @job(name="open")
        async def open(self, request):
            self.gate.set()

    async def main():
        asker, clerk = Asker(), Clerk()
        async with hosted(make_bus, [asker], [clerk]):
            for n in range(3):
                await asker.request_job("clerk", name="file", payload={"n": n})
            await ask(asker, "clerk", "open")
            await until(lambda: len(asker.told_of("completed")) == 4)
            order = [(word, n) for n in range(3) for word in ("begin", "end")]
            assert order == clerk.log

    run(main())


def test_worker_asks_itself(make_bus):
    """A worker may ask itself for a job."""

    async def main():
        doer = Doer()
        async with hosted(make_bus, [doer]):
            assert {"result": 3} == await ask(doer, "doer", "echo", payload={"value": 3})

    run(main())


def test_w41_job_behind_activation(make_bus):
    """A job sent right behind the activation of its worker was lost to the old state."""

    async def main():
        asker = Asker()
        doers = [Doer(f"doer{n}", active=False) for n in range(20)]
        async with hosted(make_bus, [asker], doers):
            for doer in doers:
                await asker.activate_worker(doer.name)
                assert {} == await ask(asker, doer.name, "echo", timeout=20)

    run(main())


def test_w41_deactivated_requester_learns(make_bus):
    """A requester that was deactivated before the answer came waited for ever."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            async with asker.job("doer", name="wait", timeout=20) as j:
                await doer.has_begun()
                await asker.deactivate_worker("asker")
                await until(lambda: not asker.active)
                doer.gate.set()
            assert {"by": "doer"} == j.response

    run(main())


def test_w41_deactivated_worker_obeys(make_bus):
    """A worker deactivated while it worked could neither be asked nor cancelled."""

    class Busy(Doer):
        async def on_job_update_requested(self, message):
            await self.send_job_update(message.job_id, {"percent": 40})

    async def main():
        asker, worker = Asker(), Busy()
        async with hosted(make_bus, [asker], [worker]):
            with pytest.raises(JobCancelledError):
                async with asker.job("doer", name="wait") as j:
                    await worker.has_begun()
                    await asker.deactivate_worker("doer")
                    await until(lambda: not worker.active)
                    await asker.request_job_update(j.job_id, "doer")
                    assert {"percent": 40} == (await anext(j)).data
                    await asker.cancel_job_group(j.job_id)
            await until(lambda: worker.ended == ["cancelled"])

    run(main())


def test_hooks_may_wait_for_jobs(make_bus):
    """A hook that waits for a job lets the answer in, which comes by the same lane."""

    class Curious(Asker):
        def __init__(self):
            super().__init__()
            self.answers = []
            self.all_asked = asyncio.Event()

        async def start(self):
            self.answers.append(await ask(self, "doer", "echo", payload={"value": "start"}))

        async def on_activated(self, args):
            self.answers.append(await ask(self, "doer", "echo", payload={"value": "activated"}))

        async def on_bus_message(self, message):
            await super().on_bus_message(message)
            if self.notes == [1]:
                self.notes.append(2)
                self.answers.append(await ask(self, "doer", "echo", payload={"value": "note"}))
                self.all_asked.set()

    async def main():
        curious, doer = Curious(), Doer()
        async with hosted(make_bus, [doer], [curious]):
            await until(lambda: len(curious.answers) == 2)
            await doer.send_bus_message(Note(source="doer", target="asker", number=1))
            await happens(curious.all_asked)
            words = [answer["result"] for answer in curious.answers]
            assert ["start", "activated", "note"] == words

    run(main())


def test_params_or_keywords(make_bus):
    """Params and keywords together are a mistake, and so is a worker that is no name."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]):
            with pytest.raises(TypeError, match="params or name"):
                asker.job("doer", params=JobParams(name="echo"), name="echo")
            with pytest.raises(TypeError, match="by its name"):
                await asker.request_job_group("doer", doer)

    run(main())


def test_early_request_waits_for_mailbox(make_bus, monkeypatch):
    """No worker is asked before the answer has somewhere to go."""

    async def main():
        asker, doer, room = Asker(), Doer(), asyncio.Event()
        async with hosted(make_bus, [doer]):
            bus = make_bus()
            subscribe = bus.subscribe

            async def subscribe_late(subscriber):
                if subscriber is asker.bus_subscription:
                    await room.wait()
                await subscribe(subscriber)

            monkeypatch.setattr(bus, "subscribe", subscribe_late)
            runner = WorkerRunner(bus=bus, session="early")
            await runner.add_workers(asker)
            running = asyncio.create_task(runner.run(auto_end=False))
            asking = asyncio.create_task(ask(asker, "doer", "echo", payload={"value": 1}))
            await runner.registry.wait_ready("doer", PATIENCE_S)
            await asyncio.sleep(0)  # let it ask, were it to
            room.set()
            assert {"result": 1} == await asking
            await runner.cancel("the test is over")
            await running

    run(main())


@pytest.mark.parametrize("kind", MISHAPS)
def test_any_error_is_answered(make_forgetting_bus, kind, caplog):
    """Whatever a handler raises and however long, it is answered at once and gives its place."""
    caplog.set_level(logging.CRITICAL + 1, "pbus")  # a test runner cannot pass half characters on

    class Unlucky(Doer):
        @job(name="mishap")
        async def mishap(self, request):
            raise MISHAPS[kind]

    async def main():
        asker, doer = Asker(), Unlucky(max_concurrency=1)
        async with hosted(make_forgetting_bus, [asker], [doer]):
            with pytest.raises(JobFailedError) as caught:
                await ask(asker, "doer", "mishap", timeout=None)
            assert type(MISHAPS[kind]).__name__ == caught.value.response["type"]
            assert 0 < len(caught.value.response["error"]) < 3_000
            assert {"result": 1} == await ask(asker, "doer", "echo", payload={"value": 1})
            assert [0, 0] == leftovers(asker, doer)

    run(main())


def test_late_cancel_keeps_the_answer(make_forgetting_bus):
    """Who cancels the task of a handler that has just returned takes nothing from its requester."""

    async def main():
        asker, doer = Asker(), HastyDoer()
        async with hosted(make_forgetting_bus, [asker], [doer]):
            assert {"in": "time"} == await ask(asker, "doer", "hasty", timeout=None)
            assert {"result": 1} == await ask(asker, "doer", "echo", payload={"value": 1})

    run(main())


def test_timeouts_are_numbers():
    """Infinity is no deadline; what is no number is refused where it was written."""
    assert JobParams(timeout=float("inf")).timeout is None
    assert 0 == JobParams(timeout=0).timeout
    with pytest.raises(ValueError, match="timeout is a number of seconds"):
        JobParams(timeout=float("nan"))


def test_late_value_is_said(make_forgetting_bus, caplog):
    """What a handler returns after the end of its stream answers nothing, and the log says so."""

    class Streamer(Doer):
        @job(name="stream")
        async def stream(self, request):
            await self.send_job_stream_end(request.job_id, {"whole": True})
            return {"answer": 42}

    async def main():
        asker, doer = Asker(), Streamer()
        async with hosted(make_forgetting_bus, [asker], [doer]):
            assert {"whole": True} == await ask(asker, "doer", "stream")
            await until(lambda: "the value is dropped" in caplog.text)
            assert [0, 0] == leftovers(asker, doer)

    run(main())
