"""Programs ported from Pipecat by a change of their imports: what they rely on holds here, too."""

import asyncio
import importlib
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import pytest

import pbus
from pbus import (
    AsyncQueueBus,
    BaseWorker,
    BusDataMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    JobEvent,
    JobGroupError,
    JobGroupEvent,
    JobGroupParams,
    WorkerActivationArgs,
    WorkerRunner,
    job,
)
from pbus.errors import (
    BusClosedError,
    HandlerDefinitionError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JobNotDoneError,
    JobStateError,
    JobTimeoutError,
    MessageDefinitionError,
    WorkerNotAttachedError,
)
from pbus.frames import Frame
from pbus.jobs import called_hooks
from support.job_helpers import Asker, Doer, ask, hosted, leftovers
from support.waiting import happens, run, until


class SlowToHear(Asker):
    """Its hooks wait for something before they note what they were told.

    Attributes:
        gate: What they wait for.
        entered: Set when one of them has begun.
    """

    def __init__(self, name="asker", **options):
        super().__init__(name, **options)
        self.gate, self.entered = asyncio.Event(), asyncio.Event()

    async def pause(self):
        self.entered.set()
        await self.gate.wait()

    async def on_job_response(self, message):
        await self.pause()
        await super().on_job_response(message)

    async def on_job_update(self, message):
        await self.pause()
        await super().on_job_update(message)

    async def on_job_completed(self, result):
        await self.pause()
        await super().on_job_completed(result)

    async def on_job_error(self, message):
        await self.pause()
        await super().on_job_error(message)


class Recording(AsyncQueueBus):
    """Keeps what was sent."""

    def __init__(self):
        super().__init__()
        self.sent = []

    async def send(self, message):
        await asyncio.sleep(0)  # as a bus that has to wait for its broker
        result = await super().send(message)
        self.sent.append(message)
        return result


# The registry


def test_awaited_watch_has_called_its_handler():
    """`await registry.watch(…)` returns once the handler has run for a worker that is ready."""

    async def main():
        told = []

        async def note(data):
            await asyncio.sleep(0)
            told.append(data.worker_name)

        async with hosted(AsyncQueueBus, [Doer()]) as (runner,):
            watch = await runner.registry.watch("doer", note)
            assert ["doer"] == told
            assert watch is await runner.registry.watch("doer", note), "it is the same watch"
            assert ["doer"] == told
            await runner.registry.watch("later", note)
            await runner.add_workers(Doer("later"))
            await until(lambda: told == ["doer", "later"])

    run(main())


def test_watch_awaited_by_its_own_handler():
    """A handler that watches by itself does not wait for itself."""

    async def main():
        told = asyncio.Event()
        async with hosted(AsyncQueueBus, [Doer()]) as (runner,):

            async def note(data):
                await runner.registry.watch(data.worker_name, note)
                told.set()

            await runner.registry.watch("doer", note)
            assert told.is_set()

    run(main())


def test_awaited_watch_outlives_an_error():
    """The error of a handler is logged; `await registry.watch(…)` returns."""

    async def main():
        async def fail(data):
            raise LookupError(data.worker_name)

        async with hosted(AsyncQueueBus, [Doer()]) as (runner,):
            await runner.registry.watch("doer", fail)

    run(main())


def test_awaited_watch_lets_the_lane_read_on():
    """A hook that waits for a watch does not hold up the answer that the watch's handler waits for."""

    class Watcher(Asker):
        async def on_activated(self, args):
            self.answer = None
            await self.registry.watch("doer", self.ask_it)
            self.told.append(("watched", self.answer))

        async def ask_it(self, data):
            self.answer = await ask(self, data.worker_name, "echo", payload={"value": 7})

    async def main():
        watcher = Watcher()
        async with hosted(AsyncQueueBus, [Doer(), watcher]):
            await until(lambda: watcher.told_of("watched") == [{"result": 7}])

    run(main())


# Errors


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (JobStateError, RuntimeError),
        (JobNotDoneError, RuntimeError),
        (WorkerNotAttachedError, RuntimeError),
        (HandlerDefinitionError, ValueError),
        (JobFailedError, JobGroupError),
        (JobTimeoutError, JobGroupError),
        (JobCancelledError, JobGroupError),
        (JobError, JobGroupError),
    ],
)
def test_errors_are_caught_as_there(error, base):
    """`except` clauses of a ported program catch what they caught."""
    assert issubclass(error, base)


def test_unattached_worker_is_a_runtime_error():
    """What needs a runner raises RuntimeError without one."""
    worker = BaseWorker("alone")
    for name in ("bus", "registry", "worker_runner"):
        with pytest.raises(RuntimeError, match="'alone' is not attached"):
            getattr(worker, name)


def test_answer_for_no_job_is_a_runtime_error():
    """Answers, updates and pieces for a job that is not open raise RuntimeError."""

    async def main():
        doer = Doer()
        async with hosted(AsyncQueueBus, [doer]):
            for send in (
                doer.send_job_response,
                doer.send_job_update,
                doer.send_job_stream_start,
                doer.send_job_stream_data,
                doer.send_job_stream_end,
            ):
                with pytest.raises(RuntimeError, match="is not open here"):
                    await send("no-job", {"x": 1})

    run(main())


def test_response_before_the_end_is_a_runtime_error():
    """The response of a job that has not been started raises RuntimeError."""

    async def main():
        asker = Asker()
        async with hosted(AsyncQueueBus, [asker]):
            with pytest.raises(RuntimeError, match="is not answered yet"):
                _ = asker.job("doer").response

    run(main())


def test_event_types_have_constants():
    """`event.type == JobEvent.UPDATE` and its like; constants are no fields."""
    for kind in (JobEvent, JobGroupEvent):
        assert ("update", "stream_start", "stream_data", "stream_end") == (
            kind.UPDATE, kind.STREAM_START, kind.STREAM_DATA, kind.STREAM_END,
        )  # fmt: skip
    event = JobEvent("update", {"n": 1})
    assert ("update", "JobEvent(type='update', data={'n': 1})") == (event.UPDATE, repr(event))


def test_events_compare_to_constants():
    """The types of events that arrive are those of the constants."""

    async def main():
        asker = Asker()
        stream = {"name": "stream", "payload": {"count": 1}}
        async with (
            hosted(AsyncQueueBus, [asker, Doer()]),
            asker.job("doer", **stream) as asked,
        ):
            kinds = [event.type async for event in asked]
        assert [JobEvent.STREAM_START, JobEvent.STREAM_DATA, JobEvent.STREAM_END] == kinds

    run(main())


# Groups


def test_wait_for_a_group_raises_its_error():
    """`await group.wait()` of a job that failed raises, as leaving its block does."""

    async def main():
        asker = Asker()
        async with hosted(AsyncQueueBus, [asker, Doer()]):
            group = await asker.create_job_group_and_request_job(["doer"], name="fail")
            with pytest.raises(JobGroupError, match="no such book"):
                await group.wait()
            group = await asker.create_job_group_and_request_job(
                ["doer"], params=JobGroupParams(name="fail", cancel_on_error=False)
            )
            await group.wait()
            assert {"doer": "error"} == group.statuses
            with pytest.raises(TypeError, match="not both"):
                await asker.create_job_group_and_request_job(
                    ["doer"], params=JobGroupParams(), name="echo"
                )
            assert [0] == leftovers(asker)

    run(main())


@pytest.mark.parametrize("way", ["cancel_job_group", "request_cancel_job_group"])
def test_cancels_are_sent_when_it_returns(way):
    """A cancelled group's workers have their cancels when the call returns."""

    async def main():
        asker, bus = Asker(), Recording()
        doers = [Doer("a"), Doer("b")]
        async with hosted(lambda: bus, [asker, *doers]):
            job_id = await asker.request_job_group("a", "b", name="wait")
            for doer in doers:
                await doer.has_begun()
            await getattr(asker, way)(job_id, reason="enough")
            cancels = [one for one in bus.sent if isinstance(one, BusJobCancelMessage)]
            assert {("a", "enough"), ("b", "enough")} == {(m.target, m.reason) for m in cancels}
            await until(lambda: [doer.ended for doer in doers] == [["cancelled"]] * 2)
            await getattr(asker, way)(job_id)  # it is over
            assert len(cancels) == len([m for m in bus.sent if isinstance(m, BusJobCancelMessage)])

    run(main())


def test_cancels_are_sent_to_those_not_yet_asked_for():
    """Cancelling a group that still waits for a worker ends it, and sends nothing."""

    async def main():
        asker, bus = Asker(), Recording()
        async with hosted(lambda: bus, [asker]):
            asking = asyncio.create_task(ask(asker, "absent", "echo"))
            await until(lambda: asker.job_groups)
            await asker.cancel_job_group(next(iter(asker.job_groups)), reason="enough")
            with pytest.raises(JobCancelledError, match="enough"):
                await asking
            assert [] == [m for m in bus.sent if isinstance(m, BusJobCancelMessage)]

    run(main())


# Hooks at the end of a job


@pytest.mark.parametrize(
    ("work", "told"),
    [
        ("echo", ["response", "completed"]),
        ("fail", ["response", "error"]),
        ("steps", ["update", "response", "completed"]),
    ],
)
def test_block_ends_after_the_hooks(work, told):
    """`async with` is left when the hooks for answers and the end have run."""

    async def main():
        asker = SlowToHear()
        async with hosted(AsyncQueueBus, [asker, Doer()]):
            asking = asyncio.create_task(ask(asker, "doer", work, payload={"count": 1}))
            await happens(asker.entered)
            await asyncio.sleep(0)  # a block that does not wait ends here
            assert not asking.done()
            asker.gate.set()
            await asyncio.wait({asking})
            assert told == [hook for hook, _ in asker.told]
            assert (work == "fail") is (asking.exception() is not None)

    run(main())


@pytest.mark.parametrize("has_hooks", [True, False])
@pytest.mark.parametrize(
    ("work", "event"), [("echo", "on_job_completed"), ("fail", "on_job_error")]
)
def test_block_ends_after_event_handlers_began(work, event, has_hooks):
    """Handlers of the events have begun when the block is left, with hooks and without."""

    async def main():
        asker, heard = Asker() if has_hooks else BaseWorker("asker"), []

        @asker.event_handler("on_job_response")
        async def hear_response(worker, message):
            heard.append("on_job_response")

        @asker.event_handler(event)
        async def hear_end(worker, end):
            heard.append(event)

        async with hosted(AsyncQueueBus, [asker, Doer()]):
            try:
                await ask(asker, "doer", work)
            except JobError:
                assert work == "fail"
            assert {"on_job_response", event} == set(heard)

    run(main())


def test_event_handler_that_asks_for_another_job():
    """The block does not wait for handlers of events: one may ask for jobs itself."""

    async def main():
        asker, answers = BaseWorker("asker"), []

        @asker.event_handler("on_job_completed")
        async def ask_once_more(worker, end):
            if not answers:
                answers.append(None)
                answers.append(await ask(worker, "doer", "echo", payload={"value": 2}))

        async with hosted(AsyncQueueBus, [asker, Doer()]):
            began = asyncio.get_running_loop().time()
            await ask(asker, "doer", "echo")
            await until(lambda: answers == [None, {"result": 2}])
            assert asyncio.get_running_loop().time() - began < called_hooks.HOOKS_S

    run(main())


def test_block_ends_after_the_hook_of_its_timeout():
    """The hook that hears of a timeout has run when the block raises it."""

    async def main():
        asker, doer = SlowToHear(), Doer()
        async with hosted(AsyncQueueBus, [asker, doer]):
            asking = asyncio.create_task(ask(asker, "doer", "wait"))
            await doer.has_begun()
            (pending,) = asker._job_client.pending_jobs()
            asker._job_client._expire(pending)  # as its timer does
            await happens(asker.entered)
            assert not asking.done()
            asker.gate.set()
            with pytest.raises(JobTimeoutError):
                await asking
            assert ["error"] == [hook for hook, _ in asker.told]

    run(main())


def test_block_that_times_out_while_it_asks():
    """So has the hook that hears of a timeout before the worker was ready."""

    async def main():
        asker = SlowToHear()
        async with hosted(AsyncQueueBus, [asker]):
            asking = asyncio.create_task(ask(asker, "absent", "echo"))
            await until(asker._job_client.pending_jobs)
            (pending,) = asker._job_client.pending_jobs()
            asker._job_client._expire(pending)
            await happens(asker.entered)
            assert not asking.done()
            asker.gate.set()
            with pytest.raises(JobTimeoutError, match="absent to be ready"):
                await asking
            assert ["error"] == [hook for hook, _ in asker.told]

    run(main())


def test_hook_that_waits_for_its_own_job():
    """A hook of a group may wait for that group: it does not wait for itself."""

    class Waiting(Asker):
        async def on_job_completed(self, result):
            await self.group.wait()
            await super().on_job_completed(result)

    async def main():
        asker = Waiting()
        async with hosted(AsyncQueueBus, [asker, Doer()]):
            asker.group = await asker.create_job_group_and_request_job(["doer"], name="echo")
            began = asyncio.get_running_loop().time()
            await asker.group.wait()
            assert 1 == len(asker.told_of("completed"))
            assert asyncio.get_running_loop().time() - began < called_hooks.HOOKS_S

    run(main())


def test_hook_that_asks_for_another_job():
    """The block waits for a hook that itself waits for another job."""

    class Chaining(Asker):
        async def on_job_completed(self, result):
            if not self.told_of("completed"):
                self.told.append(("completed", "first"))
                self.told.append(("chained", await ask(self, "doer", "echo")))

    async def main():
        asker = Chaining()
        async with hosted(AsyncQueueBus, [asker, Doer()]):
            await ask(asker, "doer", "echo")
            assert [{}] == asker.told_of("chained")

    run(main())


def test_hook_that_never_ends(monkeypatch, caplog):
    """A hook that takes too long holds up the block for a while only."""
    monkeypatch.setattr(called_hooks, "HOOKS_S", 0.01)

    async def main():
        asker = SlowToHear()
        async with hosted(AsyncQueueBus, [asker, Doer()]):
            assert {"result": 1} == await ask(asker, "doer", "echo", payload={"value": 1})
            assert [] == asker.told_of("completed")
            asker.gate.set()

    run(main())
    assert "a hook takes more than 0.01 s" in caplog.text


# Job requests


def test_event_handler_does_jobs():
    """A handler of the event on_job_request does jobs that have no handler: now, later, or not well."""

    async def main():
        doer, asker, seen = BaseWorker("doer"), Asker(), []

        @doer.event_handler("on_job_request")
        async def handle(worker, request: BusJobRequestMessage):
            seen.append(request.job_name)
            if request.job_name == "later":
                worker.create_task(worker.send_job_response(request.job_id, {"by": "later"}))
            elif request.job_name == "fail":
                raise LookupError("no such book")
            else:
                await worker.send_job_response(request.job_id, {"by": "now"})

        async with hosted(AsyncQueueBus, [doer, asker]):
            assert {"by": "now"} == await ask(asker, "doer", "now")
            assert {"by": "later"} == await ask(asker, "doer", "later")
            assert {"by": "now"} == await ask(asker, "doer", None)
            with pytest.raises(JobFailedError, match="LookupError: no such book"):
                await ask(asker, "doer", "fail")
            assert ["now", "later", None, "fail"] == seen
            doer.remove_event_handler("on_job_request", handle)
            with pytest.raises(JobFailedError, match="has no job 'now'"):
                await ask(asker, "doer", "now")

    run(main())


def test_event_handlers_share_a_job():
    """All handlers of the event are called, sync ones too; the first result is the answer."""

    async def main():
        doer, asker, seen = BaseWorker("doer"), Asker(), []
        doer.add_event_handler("on_job_request", lambda _, request: seen.append(request.job_name))
        doer.add_event_handler("on_job_request", lambda _, request: {"got": request.payload})
        doer.add_event_handler("on_job_request", lambda _, request: {"got": seen.append("last")})
        async with hosted(AsyncQueueBus, [doer, asker]):
            answer = await ask(asker, "doer", "any", payload={"n": 1})
            assert ({"got": {"n": 1}}, ["any", "last"]) == (answer, seen)

    run(main())


def test_event_handler_is_cancelled_with_its_job():
    """The handler of a cancelled job is cancelled."""

    async def main():
        doer, asker, ended = BaseWorker("doer"), Asker(), asyncio.Event()

        @doer.event_handler("on_job_request")
        async def handle(worker, request):
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

        async with hosted(AsyncQueueBus, [doer, asker]):
            job_id = await asker.request_job("doer", name="any")
            await until(lambda: doer.active_jobs)
            await asker.cancel_job_group(job_id)
            await happens(ended)
            await until(lambda: not doer.active_jobs)

    run(main())


def test_event_handler_beside_a_job_handler():
    """Where a method does the job, handlers of the event only hear of it, once."""

    async def main():
        doer, asker, heard = Doer(), Asker(), asyncio.Queue()

        @doer.event_handler("on_job_request")
        async def hear(worker, request):
            heard.put_nowait(request.job_name)
            raise LookupError("not answered by this")

        async with hosted(AsyncQueueBus, [doer, asker]):
            assert {"result": 1} == await ask(asker, "doer", "echo", payload={"value": 1})
            assert "echo" == await heard.get()
            assert heard.empty()

    run(main())


class Choosy(Doer):
    """Accepts jobs of odd numbers only; is wrong about some."""

    @job(name="number")
    async def number(self, request: BusJobRequestMessage) -> dict[str, int]:
        return dict(request.payload)

    def accepts_bus_message(self, message):
        if not isinstance(message, BusJobRequestMessage):
            return super().accepts_bus_message(message)
        number = message.payload["n"]
        if number < 0:
            raise ArithmeticError("below zero")
        return number % 2 == 1


def test_refused_job_is_answered():
    """A job that accepts_bus_message() refuses, or fails for, ends with an error at its requester."""

    async def main():
        asker, doer = Asker(), Choosy()
        async with hosted(AsyncQueueBus, [asker, doer]):
            assert {"n": 1} == await ask(asker, "doer", "number", payload={"n": 1})
            with pytest.raises(JobFailedError, match="worker 'doer' does not accept it") as refused:
                await ask(asker, "doer", "number", payload={"n": 2})
            assert ("refused", "refused") == (
                refused.value.response["reason"], refused.value.response["type"],
            )  # fmt: skip
            with pytest.raises(JobFailedError, match="ArithmeticError: below zero"):
                await ask(asker, "doer", "number", payload={"n": -1})
            assert {"n": 3} == await ask(asker, "doer", "number", payload={"n": 3})
            assert [0, 0] == leftovers(asker, doer)

    run(main())


# Before the start


def test_send_before_the_start_is_an_error():
    """What a worker sends before its runner runs is refused, never lost."""

    async def main():
        runner, worker = WorkerRunner(), Asker()
        await runner.add_workers(worker)
        with pytest.raises(BusClosedError, match=r"not started.*start"):
            await worker.send_bus_message(BusDataMessage(source="asker"))
        with pytest.raises(BusClosedError, match="not started"):
            await runner.bus.send(BusDataMessage(source="asker"))
        with pytest.raises(WorkerNotAttachedError, match=r"runner.add_workers\(\)"):
            await Asker("alone").send_bus_message(BusDataMessage(source="alone"))

    run(main())


# Mistakes


def test_dataclass_of_a_message():
    """`@dataclass` that was left on a message or a frame: the error says to drop it."""
    for base, options in ((BusDataMessage, {}), (Frame, {"kw_only": True, "frozen": True})):
        with pytest.raises(MessageDefinitionError, match=r"'LeftOn' cannot be used: .*drop @data"):

            @dataclass(**options)
            class LeftOn(base):
                text: str

    class LeftOn(BusDataMessage):  # its name is free again
        text: str

    assert "x" == LeftOn(source="a", text="x").text


def test_dataclass_fields_of_a_message():
    """Defaults that `dataclasses.field()` gave stay, each message with its own."""

    class OfFields(BusDataMessage):
        words: list[str] = dataclass_field(default_factory=list)
        count: int = dataclass_field(default=3, repr=False)
        text: str = dataclass_field()

    one, other = OfFields(source="a", text="x"), OfFields(source="a", text="y")
    one.words.append("w")
    assert (["w"], [], 3, "x") == (one.words, other.words, one.count, one.text)
    with pytest.raises(TypeError, match="text"):
        OfFields(source="a")
    with pytest.raises(MessageDefinitionError, match=r"'late' is no argument.*without init=False"):

        class Late(BusDataMessage):
            late: int = dataclass_field(init=False, default=0)


def test_activation_args_without_dataclass():
    """A subclass of WorkerActivationArgs with fields that is no dataclass says what to do."""

    class Forgotten(WorkerActivationArgs):
        topic: str | None = None

    @dataclass(kw_only=True)
    class Topic(WorkerActivationArgs):
        topic: str | None = None

    class Below(Topic):
        """Has no field of its own."""

    for make in (Forgotten, lambda: Forgotten(topic="x"), lambda: Forgotten.from_dict({})):
        with pytest.raises(HandlerDefinitionError, match=r"Forgotten: .*put @dataclass"):
            make()
    assert {"topic": "x"} == Below(topic="x").to_dict() == Topic(topic="x").to_dict()
    assert Topic(topic="x") == Topic.from_dict({"topic": "x", "other": 1})


def test_wrong_name_from_pbus():
    """A name that pbus does not have: the error has the one that was meant, also of an import."""
    with pytest.raises(ImportError, match="'JobGropError' from 'pbus': did you mean 'JobGroupE"):
        from pbus import JobGropError  # noqa: F401, PLC0415 - is to fail
    with pytest.raises(AttributeError, match="'WorkerRuner': did you mean 'WorkerRunner'"):
        _ = pbus.WorkerRuner
    with pytest.raises(ImportError, match=r"'Xyz' from 'pbus': dir\(pbus\) lists"):
        from pbus import Xyz  # noqa: F401, PLC0415 - likewise
    assert not hasattr(pbus, "JobGropError")
    assert getattr(pbus, "Xyz", None) is None
    importlib.import_module("pbus.testing")
    assert "WorkerHarness" in dir(pbus.testing)
