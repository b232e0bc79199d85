"""Whatever a user's code raises ends that code only: hooks, tasks, event handlers, and start()."""

import asyncio
import logging
import signal
import subprocess
import sys

import pytest

from pbus import AsyncQueueBus, BaseWorker, WorkerRunner, job, worker_ready
from pbus.errors import HandlerExitError
from support.faults import MISHAPS
from support.job_helpers import Note, hosted
from support.waiting import PATIENCE_S, run, until


class Jumpy(BaseWorker):
    """Raises in every hook, and counts how often each was called."""

    def __init__(self, mishap=None):
        super().__init__("jumpy")
        self.mishap = mishap
        self.calls = []
        self.tasks = []

    def fail(self, where):
        self.calls.append(where)
        raise self.mishap

    async def on_activated(self, args):
        self.fail("on_activated")

    async def on_deactivated(self):
        self.fail("on_deactivated")

    async def on_worker_ready(self, data):
        self.fail("on_worker_ready")

    @worker_ready(name="other")
    async def on_other(self, data):
        self.fail("on_other")

    def accepts_bus_message(self, message):
        if isinstance(message, Note) and message.number < 0:
            self.fail("accepts_bus_message")
        return True

    async def on_bus_message(self, message):
        if isinstance(message, Note):
            self.calls.append(message.number)
            self.tasks.append(self.create_task(self.in_a_task()))

    async def in_a_task(self):
        self.fail("task")

    @job(name="update")
    async def update(self, request):
        await self.send_job_update(request.job_id, {})
        return {}

    async def on_job_update(self, message):
        self.fail("on_job_update")

    async def on_job_completed(self, result):
        self.fail("on_job_completed")


HOOKS = {
    "on_activated", "on_deactivated", "on_worker_ready", "on_other", "accepts_bus_message", "task",
    "on_job_update", "on_job_completed", "event",
}  # fmt: skip
CANCELLED = {"cancelled": asyncio.CancelledError()}


@pytest.mark.parametrize("kind", [*MISHAPS, *CANCELLED])
def test_hooks_may_raise_anything(kind, caplog):
    """After what a hook raised the next is called, and the next message handled."""
    caplog.set_level(logging.CRITICAL + 1, "pbus")  # a test runner cannot pass half characters on
    mishap = {**MISHAPS, **CANCELLED}[kind]

    async def main():
        jumpy, other = Jumpy(mishap), BaseWorker("other")

        def on_event(worker, message):
            if "event" not in jumpy.calls:
                jumpy.fail("event")

        jumpy.add_event_handler("on_bus_message", on_event)
        bus = AsyncQueueBus()
        async with hosted(lambda: bus, [jumpy, other]) as (runner,):
            await other.activate_worker("jumpy")
            await other.deactivate_worker("jumpy")
            await other.activate_worker("jumpy")
            await jumpy.request_job("jumpy", name="update")
            for number in (-1, 0, 1):
                await other.send_bus_message(Note(source="other", target="jumpy", number=number))
            await until(lambda: set(jumpy.calls) >= HOOKS | {0, 1})
            await until(lambda: all(task.done() for task in jumpy.tasks))
            assert [] == runner.errors

    run(main())


@pytest.mark.parametrize("hook", ["start", "stop"])
def test_exit_in_start_is_a_failure(hook):
    """sys.exit() in start() or stop() fails that worker, in words, and ends no process."""

    class Quitter(BaseWorker):
        async def start(self):
            if hook == "start":
                sys.exit("no model")

        async def stop(self):
            if hook == "stop":
                sys.exit(3)

    async def main():
        runner = WorkerRunner(bus=AsyncQueueBus())
        await runner.add_workers(BaseWorker("other"))
        running = asyncio.create_task(runner.run(auto_end=False))
        await runner.registry.wait_ready("other", PATIENCE_S)
        await runner.add_workers(Quitter("quitter"))
        await runner.remove_workers("quitter")
        (error,) = runner.errors
        code = "no model" if hook == "start" else "3"
        assert f"{hook}() of 'quitter' called sys.exit({code})" in error.error
        await runner.cancel("the test is over")
        await running

    run(main())


def test_error_says_what_to_do():
    """What an exit becomes says where it was, and what to call instead."""
    exits = HandlerExitError("on_activated of 'x'", SystemExit(2))
    assert (
        "on_activated of 'x' called sys.exit(2), which ends this message only:"
        " `await self.end()` ends the session" == str(exits)
    )
    assert "raised KeyboardInterrupt" in str(HandlerExitError("it", KeyboardInterrupt()))


def test_hook_that_cannot_be_awaited(caplog):
    """A hook that a decorator made, and that is not async, is told so when it is called."""
    heard = []

    class Plain(BaseWorker):
        on_bus_message = lambda _, message: heard.append(message)  # noqa: E731 - what a decorator may do
        on_activated = lambda _, args: heard.append("activated")  # noqa: E731 - likewise

    async def main():
        bus = AsyncQueueBus()
        async with hosted(lambda: bus, [Plain("w")]):
            for number in range(2):
                await bus.send(Note(source="test", target="w", number=number))
            await until(lambda: 2 == len([one for one in heard if isinstance(one, Note)]))

    run(main())
    assert "activated" in heard
    told = [
        record.exc_text or str(record.exc_info[1]) for record in caplog.records if record.exc_info
    ]
    assert all("write it as 'async def'" in text for text in told)
    assert {"on_activated of 'w'", "on_bus_message"} == {
        text.split(":")[-3].strip() for text in told
    }


def test_abandoned_loop_is_silent():
    """A loop that was dropped with a handler in progress closes it; nothing is called a bug."""
    code = """
import asyncio, gc, logging, sys
from pbus import AsyncQueueBus, BaseWorker, BusDataMessage, WorkerRunner
from pbus.bus import BusSubscriber

class Abandoned(BusDataMessage):
    pass

class Waiting(BusSubscriber):
    name = "w"
    async def on_bus_message(self, message):
        await asyncio.Event().wait()

async def main():
    bus = AsyncQueueBus()
    await bus.start()
    await bus.subscribe(Waiting())
    await bus.send(Abandoned(source="x", target="w"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

logging.basicConfig(level=logging.ERROR)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
logging.getLogger("asyncio").disabled = True  # that a task was forgotten is true
loop.close()
del loop
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert "pbus" not in done.stderr


def test_ctrl_c_is_not_the_handlers():
    """A real Ctrl-C that interrupts a handler ends the program, as without pbus."""
    code = """
import asyncio, signal
from pbus import AsyncQueueBus, BusDataMessage
from pbus.bus import BusSubscriber

class Interrupted(BusDataMessage):
    pass

class Busy(BusSubscriber):
    name = "w"
    async def on_bus_message(self, message):
        signal.raise_signal(signal.SIGINT)
        while True:
            pass

async def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    async with AsyncQueueBus() as bus:
        await bus.subscribe(Busy())
        await bus.send(Interrupted(source="x", target="w"))
        await asyncio.sleep(60)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert -signal.SIGINT == done.returncode
