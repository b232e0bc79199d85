"""What a runner promises, on every backend: workers start, work, fail, leave and come back."""

import asyncio
import logging
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock

import pytest

from pbus.errors import DuplicateWorkerError, RunnerStateError, WorkerNotAttachedError
from pbus.handlers import job
from pbus.messages import (
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusDataMessage,
    BusEndMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
)
from pbus.registry import WorkerErrorData, heartbeat
from pbus.runner import WorkerRunner
from pbus.workers.base_worker import BaseWorker
from support.recorder import Recorder
from support.waiting import PATIENCE_S, finishes, happens, run, until


class NumberedShipment(BusDataMessage):
    """Something to work on."""

    number: int


class Failing(BaseWorker):
    """A worker that cannot start."""

    async def start(self):
        raise LookupError("no such model")


async def ready(worker):
    """Wait until a worker of some runner is ready."""

    def is_ready():
        try:
            return worker.name in worker.registry
        except WorkerNotAttachedError:
            return False

    await until(is_ready)


def numbers(worker):
    """The numbers of the shipments a worker has handled, in order."""
    return [message.number for message in worker.received if isinstance(message, NumberedShipment)]


@asynccontextmanager
async def hosting(runner, *workers, auto_end=False):
    """A runner at work, and over at the end."""
    await runner.add_workers(*workers)
    running = asyncio.create_task(runner.run(auto_end=auto_end))
    try:
        for worker in workers:
            await ready(worker)
        yield running
    finally:
        await runner.cancel("the test is over")
        await finishes(running)


@asynccontextmanager
async def started(make_bus, count):
    """Buses of the channel that outlive the runners on them."""
    buses = [make_bus() for _ in range(count)]
    try:
        for bus in buses:
            await bus.start()
        yield buses
    finally:
        for bus in buses:
            await bus.stop()


def test_run_ends_with_last_worker(make_bus):
    """With auto_end the runner returns when its last root worker has finished."""

    async def main():
        runner, first, second = WorkerRunner(bus=make_bus()), Recorder("a"), Recorder("b")
        await runner.add_workers(first, second)
        running = asyncio.create_task(runner.run())
        await ready(first)
        await ready(second)
        first.request_stop(drain=True)
        await happens(first.has_stopped)
        assert not running.done()
        second.request_stop(drain=True)
        await finishes(running)
        assert ([], False) == (runner.errors, runner.bus.is_running)

    run(main())


def test_run_without_workers_returns():
    """With auto_end and nothing to run there is nothing to wait for."""
    run(WorkerRunner().run())


def test_ready_handler_may_add(make_bus):
    """A worker added by a handler of on_ready is run, though there was none before."""

    async def main():
        runner, worker = WorkerRunner(bus=make_bus()), Recorder("a")

        @runner.event_handler("on_ready")
        async def add(runner):
            for _ in range(10):  # it takes its time
                await asyncio.sleep(0)
            await runner.add_workers(worker)

        running = asyncio.create_task(runner.run())
        await ready(worker)
        await runner.end()
        await finishes(running)

    run(main())


def test_run_stays_without_auto_end(make_bus):
    """Without auto_end the runner waits for more workers until it is told to end."""

    async def main():
        runner, worker = WorkerRunner(bus=make_bus()), Recorder("a")
        async with hosting(runner, worker) as running:
            worker.request_stop(drain=True)
            await until(lambda: runner.get_worker("a") is None)
            late = Recorder("b")
            await runner.add_workers(late)
            await ready(late)
            assert not running.done()

    run(main())


def test_runner_runs_once():
    """A runner that has run is not run again, and takes no workers."""

    async def main():
        runner = WorkerRunner()
        await runner.run()
        with pytest.raises(RunnerStateError, match="has run before"):
            await runner.run()
        with pytest.raises(RunnerStateError, match="takes no workers"):
            await runner.add_workers(Recorder("a"))

    run(main())


def test_late_launch_is_undone(make_bus):
    """A worker that got its name only when all was stopping is not started, and frees the name."""

    async def main():
        async with started(make_bus, 1) as (bus,):
            runner, worker, let_go = WorkerRunner(bus=bus), Recorder("late"), asyncio.Event()
            claim, asked = bus.leases.claim, asyncio.Event()

            async def slow_claim(lease):
                asked.set()
                await let_go.wait()
                return await claim(lease)

            bus.leases.claim = slow_claim
            async with hosting(runner) as running:
                await until(lambda: runner._state == "running")
                adding = asyncio.create_task(runner.add_workers(worker))
                await happens(asked)
                await runner.cancel()
                await finishes(running)
                let_go.set()
                with pytest.raises(RunnerStateError, match="takes no workers"):
                    await adding
            assert (0, []) == (worker.start_count, await bus.leases.leases())

    run(main())


def test_bus_of_others_is_left(make_bus):
    """A bus that ran before the runner runs after it."""

    async def main():
        async with started(make_bus, 1) as (bus,):
            await WorkerRunner(bus=bus).run()
            assert bus.is_running

    run(main())


def test_cancelled_task_cleans_up(make_bus):
    """Cancelling the task of run stops the workers, and run returns normally."""

    async def main():
        runner, worker = WorkerRunner(bus=make_bus()), Recorder("a")
        async with hosting(runner, worker) as running:
            running.cancel()
            assert await finishes(running) is None
            assert worker.has_stopped.is_set()

    run(main())


def test_w05_session_ends_alone(make_bus):
    """Ending one session on a channel does not end the others."""

    async def main():
        async with started(make_bus, 3) as buses:
            runners = [
                WorkerRunner(bus=bus, session=session)
                for bus, session in zip(buses, ("one", "two", "one"), strict=True)
            ]
            workers = [Recorder(name) for name in "abc"]
            async with (
                hosting(runners[0], workers[0]) as first,
                hosting(runners[1], workers[1]) as other,
                hosting(runners[2], workers[2]) as sibling,
            ):
                await workers[0].send_bus_message(BusEndMessage(source="a", session="one"))
                await finishes(first)
                await finishes(sibling)
                probe = NumberedShipment(source="a", target="b", number=1)
                await buses[0].send(probe)
                await until(lambda: numbers(workers[1]) == [1])
                assert (False, True) == (other.done(), "b" in runners[1].registry)

    run(main())


def test_w05_cancel_ends_alone(make_bus):
    """Cancelling one session leaves the others, and without a session named it means all."""

    async def main():
        async with started(make_bus, 2) as buses:
            one, two = (
                WorkerRunner(bus=bus, session=s) for bus, s in zip(buses, "12", strict=True)
            )
            async with (
                hosting(one, Recorder("a")) as first,
                hosting(two, Recorder("b")) as second,
            ):
                await buses[0].send(BusCancelMessage(source="a", session="1"))
                await finishes(first)
                assert not second.done()
                await buses[0].send(BusCancelMessage(source="a"))
                await finishes(second)

    run(main())


def test_w06_duplicate_is_refused(make_bus):
    """A second worker of one name is refused, gets no messages, and its end harms no other."""

    async def main():
        async with started(make_bus, 2) as buses:
            one, two = WorkerRunner(bus=buses[0], name="one"), WorkerRunner(bus=buses[1])
            first, second, other = Recorder("w"), Recorder("w"), Recorder("other")
            async with hosting(one, first):
                async with hosting(two, other):
                    with pytest.raises(DuplicateWorkerError, match="runner 'one'"):
                        await two.add_workers(second)
                    await other.send_bus_message(
                        NumberedShipment(source="other", target="w", number=1)
                    )
                    await happens(first.heard)
                await other.send_bus_message(NumberedShipment(source="other", target="w", number=2))
                await until(lambda: numbers(first) == [1, 2])
                assert ([], 0) == (second.received, second.start_count)

    run(main())


def test_w06_duplicate_at_start(make_bus):
    """A runner whose worker's name is taken reports it and, having nothing to do, returns."""

    async def main():
        async with started(make_bus, 2) as buses:
            one, two = WorkerRunner(bus=buses[0], name="one"), WorkerRunner(bus=buses[1])
            async with hosting(one, Recorder("w")):
                await two.add_workers(Recorder("w"))
                await finishes(asyncio.create_task(two.run()))
                (error,) = two.errors
                assert "w" == error.worker_name
                assert "taken by runner 'one'" in error.error

    run(main())


def test_names_are_unique_here(make_bus):
    """Workers of one runner, and the runner, have different names; else none is added."""

    async def main():
        runner = WorkerRunner(bus=make_bus(), name="r")
        await runner.add_workers(Recorder("a"))
        for names in (["b", "a"], ["b", "b"], ["b", "r"]):
            with pytest.raises(DuplicateWorkerError, match="this runner"):
                await runner.add_workers(*map(Recorder, names))
        assert runner.get_worker("b") is None

    run(main())


def test_w15_restarted_runner_knows_others(make_bus):
    """A runner that comes back under its old name knows the workers of the others at once."""

    async def main():
        async with (
            started(make_bus, 2) as buses,
            hosting(WorkerRunner(bus=buses[0], name="A"), Recorder("wa")),
        ):
            for _ in range(2):
                again = WorkerRunner(bus=buses[1], name="B")
                async with hosting(again, Recorder("wb")):
                    assert ["wa"] == again.registry.remote_workers

    run(main())


def test_w16_slow_watcher_delays_nothing(make_bus):
    """While a watcher of another process's worker hangs, the runner still obeys a cancel."""

    async def main():
        async with started(make_bus, 2) as buses:
            one, two = WorkerRunner(bus=buses[0]), WorkerRunner(bus=buses[1])
            called = asyncio.Event()

            async def hang(data):
                called.set()
                await asyncio.Event().wait()

            async with hosting(one, Recorder("a")) as running:
                one.registry.watch("b", hang)
                async with hosting(two, Recorder("b")):
                    await happens(called)
                    await buses[1].send(BusCancelMessage(source="b", session=one.session))
                    await finishes(running)

    run(main())


class Slow(Recorder):
    """A worker that takes its time until told to go on."""

    def __init__(self, name):
        super().__init__(name)
        self.may_go_on = asyncio.Event()

    async def handle(self, message):
        await self.may_go_on.wait()


def test_w23_end_is_graceful(make_forgetting_bus):
    """What was sent to a worker before end() is handled before it stops."""

    async def main():
        runner, worker = WorkerRunner(bus=make_forgetting_bus()), Slow("a")
        async with hosting(runner, worker) as running:
            for number in range(5):
                await worker.send_bus_message(
                    NumberedShipment(source="a", target="a", number=number)
                )
            await runner.end("enough")
            worker.may_go_on.set()
            await finishes(running)
            assert [0, 1, 2, 3, 4] == numbers(worker)
            assert worker.has_stopped.is_set()

    run(main())


def test_w23_jobs_are_finished(make_bus):
    """A job that is running at end() is finished and answered."""

    async def main():
        may_go_on = asyncio.Event()

        class Solver(Recorder):
            @job(name="solve")
            async def solve(self, request):
                self.heard.set()
                await may_go_on.wait()
                return {"answer": 42}

        async with started(make_bus, 2) as buses:
            here, there = WorkerRunner(bus=buses[0]), WorkerRunner(bus=buses[1])
            solver, asker = Solver("solver"), Recorder("asker")
            async with hosting(there, asker), hosting(here, solver) as running:
                async with asker.job("solver", name="solve", timeout=30) as asked:
                    await happens(solver.heard)
                    await here.end()
                    may_go_on.set()
                await finishes(running)
                assert {"answer": 42} == asked.response

    run(main())


def test_w23_end_has_deadline(make_bus, caplog):
    """A worker that does not come to its end in time is cancelled."""

    async def main():
        runner, worker = WorkerRunner(bus=make_bus()), Slow("a")
        runner.end_timeout = 0.05
        async with hosting(runner, worker) as running:
            await worker.send_bus_message(NumberedShipment(source="a", target="a", number=1))
            await runner.end()
            await finishes(running)
            assert ([], True) == (numbers(worker), worker.has_stopped.is_set())

    run(main())


def test_cancel_hurries_end(make_bus):
    """A cancel while the runner waits for its workers to finish stops them at once."""

    async def main():
        runner, worker = WorkerRunner(bus=make_bus()), Slow("a")
        async with hosting(runner, worker) as running:
            await worker.send_bus_message(NumberedShipment(source="a", target="a", number=1))
            await runner.end()
            await runner.cancel()
            await finishes(running)
            assert [] == numbers(worker)

    run(main())


def test_w24_crash_is_told(make_bus):
    """A worker that raises in start is never ready; its runner, handlers and the bus are told."""

    async def main():
        async with started(make_bus, 2) as buses:
            runner, there = WorkerRunner(bus=buses[0]), WorkerRunner(bus=buses[1])
            healthy, witness = Recorder("healthy"), Recorder("witness")
            seen, told = [], asyncio.Event()

            @runner.event_handler("on_error")
            async def note(source, data):
                seen.append((source, data))
                told.set()

            async with hosting(there, witness), hosting(runner, healthy) as running:
                await runner.add_workers(Failing("bad"))
                await happens(told)
                expected = WorkerErrorData("bad", "LookupError: no such model")
                assert ([(runner, expected)], [expected]) == (seen, runner.errors)
                await until(lambda: failures(witness))
                (error,) = failures(witness)
                assert ("bad", expected.error) == (error.source, error.error)
                await there.registry.beat()
                assert "bad" not in there.registry
                assert not running.done()

    run(main())


def failures(worker, kind=BusWorkerErrorMessage):
    """The failures a worker heard of."""
    return [message for message in worker.received if isinstance(message, kind)]


def test_w24_crashed_alone_ends(make_bus):
    """A runner whose only worker crashed returns, and says what happened."""

    async def main():
        runner = WorkerRunner(bus=make_bus())
        await runner.add_workers(Failing("bad"))
        await finishes(asyncio.create_task(runner.run()))
        assert [WorkerErrorData("bad", "LookupError: no such model")] == runner.errors

    run(main())


def test_error_handler_may_restart(make_bus):
    """A handler of on_error may add the worker again, even the only one."""

    async def main():
        runner, healthy = WorkerRunner(bus=make_bus()), Recorder("w")

        @runner.event_handler("on_error")
        async def restart(runner, data):
            for _ in range(10):  # it takes its time
                await asyncio.sleep(0)
            await runner.add_workers(healthy)

        await runner.add_workers(Failing("w"))
        running = asyncio.create_task(runner.run())
        await ready(healthy)
        await runner.end()
        await finishes(running)

    run(main())


def test_w25_child_stays_here(make_bus):
    """A child is known in its runner only; its failure is told to its parent only."""

    async def main():
        async with started(make_bus, 2) as buses:
            here, there = WorkerRunner(bus=buses[0]), WorkerRunner(bus=buses[1])
            parent, stranger = Recorder("parent"), Recorder("stranger")
            async with hosting(here, parent), hosting(there, stranger):
                kid = Recorder("kid")
                await parent.add_workers(kid, Failing("bad"))
                await here.registry.wait_ready("kid", PATIENCE_S)
                await until(lambda: failures(parent, BusWorkerLocalErrorMessage))
                await here.add_workers(other := Recorder("other"))
                await ready(other)
                await there.registry.wait_ready("other", PATIENCE_S)
                assert ["other", "parent"] == there.registry.remote_workers
                assert ["kid", "other", "parent"] == here.registry.local_workers
                (error,) = failures(parent, BusWorkerLocalErrorMessage)
                assert "bad" == error.source
                assert ([], []) == (failures(stranger), failures(parent))

    run(main())


def test_children_end_with_parent(make_bus):
    """When a parent has ended, its children are stopped, and the runner is done."""

    async def main():
        runner, parent = WorkerRunner(bus=make_bus()), Recorder("parent")
        kid = Recorder("kid")
        async with hosting(runner, parent, auto_end=True) as running:
            await parent.add_workers(kid)
            await runner.registry.wait_ready("kid", PATIENCE_S)
            parent.request_stop(drain=True)
            await finishes(running)
            assert kid.has_stopped.is_set()

    run(main())


def test_orphans_are_stopped(make_bus):
    """Children of a worker that ended without a word to them are stopped by the runner."""

    async def main():
        runner, parent, kid = WorkerRunner(bus=make_bus()), Recorder("parent"), Recorder("kid")
        parent._cancel_children = AsyncMock()
        async with hosting(runner, parent):
            await parent.add_workers(kid)
            await runner.registry.wait_ready("kid", PATIENCE_S)
            parent.request_stop(drain=False)
            await happens(kid.has_stopped)
            await until(lambda: runner.get_worker("kid") is None)

    run(main())


def test_w26_finished_worker_leaves(make_bus, monkeypatch):
    """A finished worker is unknown everywhere, hears nothing, and its name can be used again."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)  # it is announced, not missed

    async def main():
        async with started(make_bus, 2) as buses:
            here, there = WorkerRunner(bus=buses[0]), WorkerRunner(bus=buses[1])
            async with hosting(here), hosting(there, Recorder("other")):
                first = Recorder("w")
                await here.add_workers(first)
                await there.registry.wait_ready("w", PATIENCE_S)
                await here.remove_workers("w", "unknown")
                assert first.has_stopped.is_set()
                assert "w" not in here.registry
                await until(lambda: "w" not in there.registry)

                second = Recorder("w")
                await here.add_workers(second)
                await there.registry.wait_ready("w", PATIENCE_S)
                await buses[1].send(NumberedShipment(source="other", target="w", number=1))
                await until(lambda: numbers(second))  # it may hear of others before
                assert ([], [1]) == (numbers(first), numbers(second))

    run(main())


def test_w26_crashed_worker_leaves(make_bus):
    """A worker that crashed can be added again, also elsewhere."""

    async def main():
        async with started(make_bus, 2) as buses:
            here, there = WorkerRunner(bus=buses[0]), WorkerRunner(bus=buses[1])
            async with hosting(here, Recorder("a")), hosting(there, Recorder("b")):
                await here.add_workers(Failing("w"))
                await until(lambda: here.errors)
                await there.add_workers(again := Recorder("w"))
                await ready(again)

    run(main())


def test_removal_has_deadline(make_bus):
    """A worker that does not end in time is cancelled and forgotten all the same."""

    async def main():
        runner, worker = WorkerRunner(bus=make_bus()), Slow("w")
        async with hosting(runner, worker):
            await worker.send_bus_message(NumberedShipment(source="w", target="w", number=1))
            await runner.remove_workers("w", timeout=0.05)
            assert (None, True) == (runner.get_worker("w"), worker.has_stopped.is_set())

    run(main())


def test_activation_survives_restart(make_bus):
    """A worker that was activated begins active in its next incarnation, with its arguments."""

    async def main():
        async with started(make_bus, 2) as buses:
            for session, expected in (("one", (True, {"n": 1})), ("two", (False, None))):
                first, second = Recorder("w", active=False), Recorder("w", active=False)
                async with hosting(WorkerRunner(bus=buses[0], session="one"), first):
                    message = BusActivateWorkerMessage(source="t", target="w", args={"n": 1})
                    await buses[1].send(message)
                    await until(
                        lambda heard=first.received: BusActivateWorkerMessage in map(type, heard)
                    )
                async with hosting(WorkerRunner(bus=buses[1], session=session), second):
                    assert expected == (second.active, second.activation_args)

    run(main())


def test_stubborn_worker_is_left(make_bus, monkeypatch, caplog):
    """A worker that swallows its cancellation is left behind; the runner still returns."""
    monkeypatch.setattr("pbus.runner.hosted_workers.CANCEL_TIMEOUT_S", 0.05)
    monkeypatch.setattr("pbus.runner.hosted_workers.FORCE_TIMEOUT_S", 0.05)
    let_go = asyncio.Event()

    class Stubborn(Recorder):
        async def stop(self):
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue
            await super().stop()

    async def main():
        runner = WorkerRunner(bus=make_bus())
        await runner.add_workers(worker := Stubborn("w"))
        running = asyncio.create_task(runner.run())
        await ready(worker)
        await runner.cancel()
        await finishes(running)
        let_go.set()
        await happens(worker.has_stopped)

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "worker w ignores its cancellation; it is left behind" in caplog.messages
