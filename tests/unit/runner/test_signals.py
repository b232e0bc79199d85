"""Signals that end runners, and what Python does with them afterwards."""

import asyncio
import os
import signal
import threading

import pytest

from pbus.runner import WorkerRunner
from pbus.runner.signals import signals_to
from support.job_helpers import Asker, Doer
from support.recorder import Recorder
from support.waiting import PATIENCE_S, finishes, run, until


def raise_signal(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_runner(number):
    """A signal that the runner handles stops its workers, and run returns normally."""

    async def main():
        runner, worker = WorkerRunner(handle_sigint=True, handle_sigterm=True), Recorder("a")
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await until(lambda: "a" in runner.registry)
        raise_signal(number)
        await finishes(running)
        assert worker.has_stopped.is_set()

    before = signal.getsignal(number)
    run(main())
    assert before == signal.getsignal(number)


def test_signal_reaches_all_runners():
    """Of two runners in one process both hear of Ctrl-C."""

    async def main():
        runners = [WorkerRunner(), WorkerRunner()]
        for runner in runners:
            await runner.add_workers(Recorder("a"))
        running = [asyncio.create_task(runner.run()) for runner in runners]
        await until(lambda: all("a" in runner.registry for runner in runners))
        raise_signal(signal.SIGINT)
        for task in running:
            await finishes(task)

    run(main())


def test_third_signal_forces():
    """A third Ctrl-C does not wait for a worker that takes long to stop."""

    class Slow(Recorder):
        is_stopping = False

        async def stop(self):
            self.is_stopping = True
            await asyncio.Event().wait()

    async def main():
        runner, worker = WorkerRunner(), Slow("a")
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await until(lambda: "a" in runner.registry)
        raise_signal(signal.SIGINT)
        await until(lambda: worker.is_stopping)
        assert not running.done()
        raise_signal(signal.SIGINT)
        await until(runner._cancel_requested.is_set)
        assert not running.done()
        raise_signal(signal.SIGINT)
        await finishes(running)

    run(main())


@pytest.mark.parametrize("count", [1, 2])
def test_first_signal_drains(count):
    """The first one lets an open job end, the second one cancels it."""

    async def main():
        runner, doer, asker = WorkerRunner(), Doer(), Asker()
        await runner.add_workers(doer, asker)
        running = asyncio.create_task(runner.run())
        await until(lambda: "doer" in runner.registry and "asker" in runner.registry)
        await asker.request_job("doer", name="wait")
        await doer.has_begun()
        raise_signal(signal.SIGTERM)
        await until(lambda: runner._stopping is not None)
        if count == 1:
            doer.gate.set()
        else:
            raise_signal(signal.SIGTERM)
        await finishes(running)
        assert ["done" if count == 1 else "cancelled"] == doer.ended

    run(main())


@pytest.mark.parametrize(
    ("choice", "has_handler", "expected"),
    [(None, False, True), (None, True, False), (True, True, True), (False, False, False)],
)
def test_own_handler_of_the_program_counts(choice, has_handler, expected):
    """SIGTERM is handled unless the program does so itself; asked for, it is in any case."""
    own = (lambda *_: None) if has_handler else signal.SIG_DFL
    before = signal.signal(signal.SIGTERM, own)

    async def main():
        with signals_to(lambda _: None, {signal.SIGTERM: choice}):
            assert expected == (signal.getsignal(signal.SIGTERM) is not own)
            with signals_to(lambda _: None, {signal.SIGTERM: choice}):  # a second runner
                assert expected == (signal.getsignal(signal.SIGTERM) is not own)

    try:
        run(main())
        assert own == signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_unhandled_signal_is_left():
    """A runner that is not to handle a signal leaves it to other handlers."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))

    async def main():
        runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
        await runner.add_workers(Recorder("a"))
        running = asyncio.create_task(runner.run())
        await until(lambda: "a" in runner.registry)
        raise_signal(signal.SIGTERM)
        await until(lambda: heard)
        assert not running.done()
        await runner.cancel()
        await finishes(running)

    try:
        run(main())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_thread_has_none():
    """In a thread that cannot have signals a runner works without them."""
    done = []

    async def main():
        with signals_to(done.append, {signal.SIGINT: True}):
            await WorkerRunner().run()
        done.append("ran")

    thread = threading.Thread(target=lambda: run(main()))
    thread.start()
    thread.join(PATIENCE_S)
    assert ["ran"] == done
