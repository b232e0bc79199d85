"""How a PbusBus delivers within its process: in Pipecat's order, and not where it has no effect."""

import ast
import asyncio
import contextlib
import inspect
import textwrap

import pytest
from pipecat.bus import (
    AsyncQueueBus,
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDataMessage,
    BusEndMessage,
    BusFrameMessage,
    BusJobCancelMessage,
    BusMessage,
    BusSubscriber,
    BusTTSSpeakMessage,
    BusWorkerRegistryMessage,
)
from pipecat.frames.frames import TextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection
from pipecat.utils.asyncio.task_manager import TaskManager
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner

from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.deliveries import Deliveries
from support.pipecat_bots import Bot
from support.waiting import run, until


class Log(BusSubscriber):
    """Notes what it handles; one message may be held, and one refused."""

    def __init__(self, name="log"):
        self._own_name = name
        self.seen = []
        self.gates = {}
        self.refused = set()

    @property
    def name(self):
        return self._own_name

    def accepts_bus_message(self, message):
        if "raise" in self.refused:
            raise RuntimeError("which?")
        return text_of(message) not in self.refused

    async def on_bus_message(self, message):
        text = text_of(message)
        self.seen.append(text)
        if text in self.gates:
            await self.gates[text].wait()
            self.seen.append(f"{text} done")
        if text == "bad":
            raise ValueError(text)


def text_of(message):
    return getattr(message, "text", None) or message.reason


def data(text, target=None):
    return BusTTSSpeakMessage(source="a", target=target, text=text)


def system(text):
    return BusJobCancelMessage(source="a", job_id="1", reason=text)


class Theirs:
    """Pipecat's own bus, by the calls of Deliveries: both must do the same."""

    def __init__(self):
        self._bus = AsyncQueueBus()
        self.add_later = []

    def add(self, subscriber):
        self.add_later.append(subscriber)

    async def start(self):
        await self._bus.setup(TaskManager())
        for subscriber in self.add_later:
            await self._bus.subscribe(subscriber)
        await self._bus.start()

    def put(self, message):
        self._bus.on_message_received(message)

    async def stop(self):
        await self._bus.stop()


class Ours(Deliveries):
    """The same calls."""

    async def start(self):
        super().start()


@pytest.fixture(params=[Ours, Theirs])
def deliveries(request):
    return request.param


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_order_is_that_of_pipecat(deliveries):
    """System messages overtake data, and run beside a data handler; data behind one wait for it."""

    async def main():
        bus, log = deliveries(), Log()
        log.gates = {"slow": asyncio.Event(), "urgent": asyncio.Event()}
        log.refused = {"no"}
        bus.add(log)
        await bus.start()
        for message in (data("slow"), data("next"), data("no")):
            bus.put(message)
        await turns()
        assert ["slow"] == log.seen
        bus.put(system("urgent"))
        await turns()
        assert ["slow", "urgent"] == log.seen
        bus.put(data("behind"))
        log.gates["slow"].set()
        await until(lambda: "next" in log.seen)
        await turns()
        assert ["slow", "urgent", "slow done", "next"] == log.seen
        log.gates["urgent"].set()
        await until(lambda: "behind" in log.seen)
        assert ["urgent done", "behind"] == log.seen[4:]
        await bus.stop()

    run(main())


def test_what_comes_before_the_start_waits(deliveries):
    """System messages first then, and nothing is handled after the stop."""

    async def main():
        bus, log = deliveries(), Log()
        if deliveries is Theirs:
            await bus._bus.subscribe(log)
        bus.add(log)
        for message in (data("1"), data("2"), system("first")):
            bus.put(message)
        await turns()
        assert [] == log.seen
        await bus.start()
        await until(lambda: len(log.seen) == 3)
        assert ["first", "1", "2"] == log.seen
        await bus.stop()
        await bus.stop()
        bus.put(data("late"))
        bus.put(system("late"))
        await turns()
        assert ["first", "1", "2"] == log.seen

    run(main())


def test_handlers_that_raise_go_on(deliveries):
    """As does another subscriber while one is held."""

    async def main():
        bus, log, held = deliveries(), Log(), Log("held")
        held.gates = {"bad": asyncio.Event()}
        bus.add(log)
        bus.add(held)
        await bus.start()
        for message in (data("bad"), system("bad"), data("good")):
            bus.put(message)
        await until(lambda: len(log.seen) == 3)
        assert ["bad", "bad", "good"] == log.seen
        assert set(held.seen) == {"bad"}
        await bus.stop()

    run(main())


def test_a_refusal_that_raises_is_a_refusal(caplog):
    """Pipecat's bus delivers nothing more to such a subscriber."""

    async def main():
        bus, log = Ours(), Log()
        bus.add(log)
        bus.add(Log())  # a second one of a name is left out, as by Pipecat
        log.refused = {"raise"}
        await bus.start()
        bus.put(data("1"))
        bus.put(system("2"))
        await until(lambda: caplog.text.count("does not say whether it takes") == 2)
        log.refused = {"3"}
        for text in "345":
            bus.put(data(text))
        await until(lambda: log.seen == ["4", "5"])
        await bus.remove(log)
        bus.put(data("6"))
        late = Log("late")
        bus.add(late)
        bus.put(data("7"))
        await until(lambda: late.seen == ["7"])
        assert ["4", "5"] == log.seen
        await bus.stop()

    run(main())


def test_a_long_run_lets_others_in():
    """A lane without end does not keep the loop."""

    async def main():
        bus, log = Ours(), Log()
        bus.add(log)
        await bus.start()
        count = 1000
        for number in range(count):
            bus.put(data(str(number)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 < len(log.seen) < count
        await until(lambda: len(log.seen) == count)
        assert [str(number) for number in range(count)] == log.seen
        await bus.stop()

    run(main())


# Who wants what


class Hears(BaseWorker):
    async def on_bus_message(self, message):
        await super().on_bus_message(message)


class Chooses(BaseWorker):
    def accepts_bus_message(self, message):
        return super().accepts_bus_message(message)


class Between(BaseWorker):
    async def on_bus_message(self, message):
        await super().on_bus_message(message)


class Below(PipelineWorker, Between):
    """Its own class has no hook, but one of its bases does."""


def concrete_messages():
    """One message of each class of Pipecat's, for another worker."""
    frame = BusFrameMessage(
        source="a", target="other", frame=TextFrame("t"), direction=FrameDirection.DOWNSTREAM
    )
    for cls in theirs.subclasses_of(BusMessage):
        if not cls.__module__.startswith("pipecat."):
            continue
        with contextlib.suppress(TypeError):  # an abstract one, or one with fields
            yield cls(source="a", target="other")
    yield frame
    yield data("hi", "other")
    yield BusJobCancelMessage(source="a", target="other", job_id="1")
    yield BusCancelWorkerMessage(source="a", target="other")


def noting(effects, name):
    return lambda *_: effects.append(name)


def test_messages_for_others_have_no_effect_on_workers():
    """So they need not be delivered to those of Pipecat's own classes; those with hooks hear all."""

    async def main():
        for worker in (BaseWorker("mine"), PipelineWorker(Pipeline([]), name="mine")):
            effects = []
            for name in dir(type(worker)):
                if name.startswith(("_handle", "_queue", "_call", "queue_", "send_")):
                    setattr(worker, name, noting(effects, name))
            wanted = theirs.wanted_by(worker)
            messages = list(concrete_messages())
            assert len(messages) > 15
            for message in messages:
                assert not wanted(message)
                await worker.on_bus_message(message)
            assert [] == effects
            assert wanted(data("hi"))
            assert wanted(data("hi", "mine"))
            assert wanted(BusActivateWorkerMessage(source="a", target="mine"))

    run(main())


def test_subscribers_with_code_of_their_own_hear_all():
    """By a class, a base, or the object itself."""

    async def main():
        patched = BaseWorker("patched")
        patched.on_bus_message = lambda _message: None
        others = [Hears("h"), Chooses("c"), Below(Pipeline([]), name="below"), Log(), Bot("b")]
        for one in (*others, patched):
            assert theirs.wanted_by(one)(data("hi", "other")), one

    run(main())


def test_runners_want_what_they_handle():
    """Exactly the classes that theirs asks for."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(WorkerRunner.on_bus_message)))
    asked = {
        node.args[1].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
    }
    handled = [BusEndMessage, BusCancelMessage, BusAddWorkerMessage, BusWorkerRegistryMessage]
    assert {cls.__name__ for cls in handled} == asked

    async def main():
        wanted = theirs.wanted_by(WorkerRunner(handle_sigint=False))
        assert all(
            wanted(cls(source="a", **extra))
            for cls, extra in zip(
                handled, [{}, {}, {"worker": None}, {"runner": "r", "workers": []}], strict=True
            )
        )
        assert not wanted(BusDataMessage(source="a"))
        assert not wanted(data("hi"))

    run(main())
