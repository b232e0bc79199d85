"""The lifecycle of a worker on every backend: starting, being active, handing over, ending."""

import asyncio
import logging

import pytest

from pbus.errors import UnknownEventError, WorkerNotAttachedError, WorkerNotFoundError
from pbus.handlers import worker_ready
from pbus.messages import (
    BusActivateWorkerMessage,
    BusEndWorkerMessage,
    BusWorkerErrorMessage,
    BusWorkerReadyMessage,
)
from pbus.runner import WorkerRunner
from pbus.workers import activation
from pbus.workers.activation import WorkerActivationArgs
from pbus.workers.base_worker import BaseWorker
from support.job_helpers import Asker, Doer, Note, NotingDoer, ask, hosted
from support.waiting import PATIENCE_S, run, until


class Diary(BaseWorker):
    """Records its lifecycle."""

    def __init__(self, name="diary", **options):
        super().__init__(name, **options)
        self.log = []

    async def start(self):
        self.log.append("start")

    async def stop(self):
        self.log.append("stop")

    async def on_activated(self, args):
        self.log.append(("activated", args))

    async def on_deactivated(self):
        self.log.append("deactivated")

    async def on_worker_ready(self, data):
        self.log.append(("ready", data.worker_name))

    async def on_worker_lost(self, data):
        self.log.append(("lost", data.worker_name))

    async def on_bus_message(self, message):
        if isinstance(message, Note):
            self.log.append(message.number)


def note(source, target, number):
    return Note(source=source, target=target, number=number)


# Lifecyclecycle


def test_lifecycle_in_order(make_bus):
    """A worker starts, becomes active, works, and stops."""

    async def main():
        diary, asker = Diary(), Asker()
        async with hosted(make_bus, [asker], [diary]) as (_, runner):
            assert diary.started_at is not None
            await asker.send_bus_message(note("asker", "diary", 1))
            await until(lambda: 1 in diary.log)  # its removal comes from elsewhere
            await runner.remove_workers("diary")
        assert ["start", ("activated", None), 1, "stop"] == diary.log

    run(main())


def test_session_end_reaches_all(make_bus):
    """Any worker can end its session; all runners of it return."""

    async def main():
        diaries = [Diary("one"), Diary("two")]
        async with hosted(make_bus, [diaries[0]], [diaries[1]]):
            await diaries[0].end("all done")
            await until(lambda: all(diary.log[-1] == "stop" for diary in diaries))

    run(main())


def test_w24_crash_in_start(make_bus):
    """A worker that crashed at its start was announced as ready, and no process was told."""

    class Broken(Diary):
        async def start(self):
            raise LookupError("no such model")

    async def main():
        errors = []

        class Listener(BaseWorker):
            async def on_bus_message(self, message):
                if isinstance(message, BusWorkerErrorMessage):
                    errors.append((message.source, message.error))

        broken = Broken("broken")
        async with hosted(make_bus, [Listener("listener")], []) as (other, runner):
            await runner.add_workers(broken)
            await until(lambda: errors)
            assert [("broken", "LookupError: no such model")] == errors
            assert [errors[0][1]] == [data.error for data in runner.errors]
            assert "broken" not in other.registry
            assert ["stop"] == broken.log
            await runner.add_workers(Diary("broken"))  # the name is free again
            await other.registry.wait_ready("broken", PATIENCE_S)

    run(main())


def test_stop_error_is_reported(make_bus):
    """What stop() raises is the runner's to report."""

    class Messy(Diary):
        async def stop(self):
            raise OSError("disk full")

    async def main():
        async with hosted(make_bus, [Messy("messy")]) as (runner,):
            await runner.remove_workers("messy")
            assert ["OSError: disk full"] == [data.error for data in runner.errors]

    run(main())


def test_start_can_be_cancelled(make_bus):
    """A worker that hangs in start() can be stopped."""

    class Hanging(Diary):
        async def start(self):
            await super().start()
            await asyncio.Event().wait()

    async def main():
        hanging = Hanging("hanging")
        async with hosted(make_bus, []) as (runner,):
            await runner.add_workers(hanging)
            await until(lambda: hanging.log)
            hanging.request_stop(drain=False)
            await until(lambda: runner.get_worker("hanging") is None)
            assert (["start", "stop"], []) == (hanging.log, runner.errors)

    run(main())


def test_w26_same_worker_again(make_bus):
    """A worker that had finished stayed registered and could not come back."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]) as (other, runner):
            for _ in range(2):
                assert {} == await ask(asker, "doer", "echo")
                await runner.remove_workers("doer")
                await until(lambda: "doer" not in other.registry)
                await runner.add_workers(doer)
            assert {} == await ask(asker, "doer", "echo")

    run(main())


def test_w23_end_is_graceful(make_forgetting_bus):
    """Ending dropped what was queued and cancelled the jobs in hand."""

    class Slow(NotingDoer):
        async def on_bus_message(self, message):
            await asyncio.sleep(0.02)
            await super().on_bus_message(message)

    async def main():
        asker, slow = Asker(), Slow()
        async with hosted(make_forgetting_bus, [asker], [slow]) as (_, runner):
            async with asker.job("doer", name="wait") as j:
                await slow.has_begun()
                for number in range(10):
                    await asker.send_bus_message(note("asker", "doer", number))
                end = BusEndWorkerMessage(source="asker", target="doer")
                await asker.send_bus_message(end)
                await until(lambda: len(slow.notes) == 10)
                slow.gate.set()
            assert ({"by": "doer"}, ["done"]) == (j.response, slow.ended)
            await until(lambda: runner.get_worker("doer") is None)

    run(main())


def test_late_end_spares_the_next_incarnation(make_forgetting_bus):
    """An end that was meant for an earlier process of the name ends no worker."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_forgetting_bus, [asker], [doer]) as (_, runner):

            async def end(incarnation):
                message = BusEndWorkerMessage(
                    source="asker", target="doer", incarnation=incarnation
                )
                await asker.send_bus_message(message)

            await end("another incarnation")
            assert {"result": 1} == await ask(asker, "doer", "echo", payload={"value": 1})
            await end(doer.bus.incarnation)
            await until(lambda: runner.get_worker("doer") is None)

    run(main())


def test_ending_is_not_for_ever(make_forgetting_bus):
    """A worker that does not finish its jobs in time is stopped all the same."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_forgetting_bus, [asker], [doer]) as (_, runner):
            runner.end_timeout = 0.2
            await asker.request_job("doer", name="wait")
            await doer.has_begun()
            doer.request_stop(drain=True)
            await until(lambda: runner.get_worker("doer") is None)
            assert ["cancelled"] == doer.ended
            (error,) = await until_told(asker, "error")
            assert "worker 'doer' was stopped before the job was done" in error.response["error"]

    run(main())


async def until_told(asker, hook):
    """What a hook was told, once it was."""
    await until(lambda: asker.told_of(hook))
    return asker.told_of(hook)


def test_given_time_is_what_jobs_get(make_bus):
    """Who ends a worker says how long its jobs may take, whatever its runner would give them."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_bus, [asker], [doer]) as (_, runner):
            runner.end_timeout = 0.0
            async with asker.job("doer", name="wait") as j:
                await doer.has_begun()
                removing = asyncio.create_task(runner.remove_workers("doer", timeout=PATIENCE_S))
                await until(lambda: doer._is_stopping)
                doer.gate.set()
            assert ({"by": "doer"}, ["done"]) == (j.response, doer.ended)
            await removing

    run(main())


def test_ending_requester_waits_for_its_jobs(make_any_bus):
    """A worker that ends gets the answers to what it asked for, as long as there is a worker."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_any_bus, [asker], [doer]) as (runner, _):
            asked = asker.create_task(ask(asker, "doer", "wait"))
            await doer.has_begun()
            asker.request_stop(drain=True)
            await until(lambda: asker._is_stopping)
            doer.gate.set()
            await until(lambda: runner.get_worker("asker") is None)
            assert ({"by": "doer"}, ["done"]) == (asked.result(), doer.ended)

    run(main())


def test_ending_requester_waits_for_none(make_any_bus):
    """But not for a worker that has gone."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_any_bus, [asker], [doer]) as (runner, other):
            await asker.request_job("doer", name="wait", timeout=None)
            await doer.has_begun()
            doer.request_stop(drain=False)
            await until(lambda: other.get_worker("doer") is None)
            asker.request_stop(drain=True)
            await until(lambda: runner.get_worker("asker") is None)

    run(main())


def test_ready_message_for_observers(make_bus):
    """Observers are told when a worker becomes ready."""

    async def main():
        seen = []

        class Observer(BaseWorker):
            async def on_bus_message(self, message):
                if isinstance(message, BusWorkerReadyMessage):
                    seen.append((message.source, message.active, message.runner))

        async with hosted(make_bus, [Observer("observer")], []) as (_, runner):
            await runner.add_workers(Doer(active=False))
            await until(lambda: ("doer", False, runner.name) in seen)

    run(main())


def test_unattached_worker_says_so():
    """Using a worker without a runner is an error, not silence."""

    async def main():
        worker = BaseWorker("alone")
        with pytest.raises(WorkerNotAttachedError):
            await worker.send_bus_message(note("alone", "other", 1))
        with pytest.raises(WorkerNotAttachedError):
            worker.job("other")

    run(main())


# Activity


def test_activation_calls_hooks_again(make_bus):
    """Each activation and deactivation calls its hook, also when nothing changes."""

    async def main():
        diary, asker = Diary(active=False), Asker()
        args = WorkerActivationArgs(metadata={"topic": "books"})
        async with hosted(make_bus, [asker], [diary]):
            assert ["start"] == diary.log
            await asker.activate_worker("diary", args=args)
            await asker.activate_worker("diary", args={"n": 2})
            await until(lambda: len(diary.log) == 3)
            assert {"n": 2} == diary.activation_args
            await asker.deactivate_worker("diary")
            await asker.deactivate_worker("diary")
            await until(lambda: len(diary.log) == 5)
            assert (False, None) == (diary.active, diary.activation_args)
            told = [("activated", {"metadata": {"topic": "books"}}), ("activated", {"n": 2})]
            assert ["start", *told, "deactivated", "deactivated"] == diary.log

    run(main())


def test_activation_before_start_is_kept(make_bus):
    """A worker activated before it has started is told so afterwards, once."""

    class Late(Diary):
        def __init__(self):
            super().__init__(active=False)
            self.gate = asyncio.Event()

        async def start(self):
            await super().start()
            await self.gate.wait()

    async def main():
        late = Late()
        async with hosted(make_bus, []) as (runner,):
            await runner.add_workers(late)
            await until(lambda: late.log)
            await runner.bus.send(
                BusActivateWorkerMessage(source="test", target="diary", args={"early": True})
            )
            late.gate.set()
            await until(lambda: len(late.log) == 2)
            assert ["start", ("activated", {"early": True})] == late.log

    run(main())


def test_inactive_worker_drops_data(make_bus):
    """Data for an inactive worker is dropped and counted; what comes behind an activation is not."""

    async def main():
        diary, asker = Diary(active=False), Asker()
        async with hosted(make_bus, [asker], [diary]):
            await asker.send_bus_message(note("asker", "diary", 1))
            await asker.activate_worker("diary")
            await asker.send_bus_message(note("asker", "diary", 2))
            await until(lambda: diary.log[-1] == 2)
            assert (["start", ("activated", None), 2], 1) == (diary.log, diary.dropped)

    run(main())


def test_activation_survives_restart(make_bus):
    """A worker that comes back within the session is as it was last told to be."""

    async def main():
        asker = Asker()
        async with hosted(make_bus, [asker], [Diary(active=False)]) as (other, runner):
            await asker.activate_worker("diary", args={"n": 1})
            await until(lambda: other.registry.ready("diary"))
            await runner.remove_workers("diary")
            again = Diary(active=False)
            await runner.add_workers(again)
            await until(lambda: len(again.log) == 2)
            assert ["start", ("activated", {"n": 1})] == again.log

    run(main())


def test_group_is_activated_as_one(make_bus):
    """Activating a group reaches all its replicas."""

    async def main():
        asker = Asker()
        replicas = [Diary(f"diary.{n}", active=False) for n in (1, 2, 3)]
        async with hosted(make_bus, [asker], replicas[:1], replicas[1:]):
            await asker.activate_worker("diary")
            await until(lambda: all(replica.active for replica in replicas))
            await until(lambda: len(asker.registry.ready("diary")) == 3)
            for number in range(6):
                await asker.send_bus_message(note("asker", "diary", number))
            await until(lambda: [2, 2, 2] == [len(notes(replica)) for replica in replicas])

    run(main())


def notes(diary):
    return [entry for entry in diary.log if isinstance(entry, int)]


def test_everyone_is_activated(make_bus):
    """An activation without a target is for every worker."""

    async def main():
        asker, diaries = Asker(), [Diary("one", active=False), Diary("two", active=False)]
        async with hosted(make_bus, [asker], diaries):
            await asker.send_bus_message(BusActivateWorkerMessage(source="asker"))
            await until(lambda: all(diary.active for diary in diaries))

    run(main())


def test_handoff_leaves_one_active(make_bus):
    """A handoff makes the caller inactive at once, and the other active."""

    async def main():
        one, two = Diary("one"), Diary("two", active=False)
        async with hosted(make_bus, [one], [two]):
            await one.activate_worker("two", args={"from": "one"}, deactivate_self=True)
            assert not one.active
            await until(lambda: two.log[-1] == ("activated", {"from": "one"}))
            await until(lambda: one.log[-1] == "deactivated")

    run(main())


def test_handoff_to_self(make_bus):
    """A handoff to one's own name ends with oneself active."""

    async def main():
        diary = Diary()
        async with hosted(make_bus, [diary]):
            await diary.activate_worker("diary", args={"n": 1}, deactivate_self=True)
            await until(lambda: diary.log[-2:] == ["deactivated", ("activated", {"n": 1})])
            assert diary.active

    run(main())


def test_w43_handoff_to_unknown_name(make_bus, monkeypatch):
    """A handoff to a name that does not exist left no worker active."""
    monkeypatch.setattr(activation, "REGISTERED_WITHIN_S", 0.2)

    async def main():
        diary = Diary()
        async with hosted(make_bus, [diary]):
            with pytest.raises(WorkerNotFoundError, match="nobody"):
                await diary.activate_worker("nobody", deactivate_self=True)
            assert diary.active
            assert "deactivated" not in diary.log

    run(main())


def test_worker_ready_handoff(make_bus):
    """The first program of the manual: activate a worker as soon as it is ready."""

    class Main(BaseWorker):
        @worker_ready(name="greeter")
        async def on_greeter_ready(self, data):
            await self.activate_worker("greeter")

    async def main():
        greeter = Diary("greeter", active=False)
        runner = WorkerRunner(bus=make_bus())
        await runner.add_workers(Main("main"), greeter)
        running = asyncio.create_task(runner.run(auto_end=True))
        await until(lambda: ("activated", None) in greeter.log)
        await greeter.end("seen")
        await running
        assert ["start", ("activated", None), "stop"] == greeter.log

    run(main())


# Hooks


def test_raising_hooks_stop_nothing(make_bus, caplog):
    """What hooks raise is logged, and the worker goes on."""

    class Clumsy(Diary):
        async def on_activated(self, args):
            raise ValueError("clumsy")

        async def on_bus_message(self, message):
            await super().on_bus_message(message)
            raise ValueError("clumsy")

    async def main():
        clumsy, asker = Clumsy(), Asker()
        async with hosted(make_bus, [asker], [clumsy]):
            for number in (1, 2):
                await asker.send_bus_message(note("asker", "diary", number))
            await until(lambda: [1, 2] == notes(clumsy))
            assert clumsy.active

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "on_activated raised" in caplog.text


def test_long_activation_blocks_none(make_bus, monkeypatch):
    """A hook that goes on for ever does not keep messages waiting for ever."""
    monkeypatch.setattr(activation, "HOOK_TIMEOUT_S", 0.1)

    class Producer(Diary):
        async def on_activated(self, args):
            await asyncio.Event().wait()

    async def main():
        producer, asker = Producer(), Asker()
        async with hosted(make_bus, [asker], [producer]) as (_, runner):
            await asker.send_bus_message(note("asker", "diary", 1))
            await until(lambda: [1] == notes(producer))
            await runner.remove_workers("diary")
            assert "stop" == producer.log[-1]

    run(main())


def test_data_waits_for_activation(make_bus):
    """A message behind an activation is handled when its hook is done."""

    class Careful(Diary):
        async def on_activated(self, args):
            await asyncio.sleep(0.1)
            await super().on_activated(args)

    async def main():
        careful, asker = Careful(active=False), Asker()
        async with hosted(make_bus, [asker], [careful]):
            await asker.activate_worker("diary")
            await asker.send_bus_message(note("asker", "diary", 1))
            await until(lambda: len(careful.log) == 3)
            assert ["start", ("activated", None), 1] == careful.log

    run(main())


def test_events_tell_listeners(make_bus):
    """Events tell those who do not subclass; a wrong name is an error with the right one."""

    async def main():
        worker, seen = BaseWorker("plain", active=False), []

        @worker.event_handler("on_activated")
        async def activated(who, args):
            seen.append((who.name, args))

        @worker.event_handler("on_bus_message")
        def heard(who, message):
            if isinstance(message, Note):
                seen.append(message.number)

        with pytest.raises(UnknownEventError, match="on_activated"):
            worker.event_handler("on_activate")
        asker = Asker()
        async with hosted(make_bus, [asker], [worker]):
            await asker.activate_worker("plain", args={"n": 1})
            await asker.send_bus_message(note("asker", "plain", 2))
            await until(lambda: len(seen) == 2)
            assert ("plain", {"n": 1}) in seen
            assert 2 in seen

    run(main())


def test_watched_workers_come_and_go(make_bus):
    """watch_workers tells of workers that are ready, become ready, and leave."""

    class Watcher(Diary):
        @worker_ready(name="doer")
        async def on_doer(self, data):
            self.log.append("handler")

    async def main():
        watcher = Watcher()
        async with hosted(make_bus, [watcher], [Doer(), Doer("other")]) as (_, runner):
            await watcher.watch_workers("other", "other")
            await until(lambda: ("ready", "doer") in watcher.log)
            await until(lambda: ("ready", "other") in watcher.log)
            assert watcher.log.index("handler") < watcher.log.index(("ready", "doer"))
            await runner.remove_workers("other")
            await until(lambda: watcher.log[-1] == ("lost", "other"))
            await runner.add_workers(Doer("other"))
            await until(lambda: watcher.log[-1] == ("ready", "other"))

    run(main())


def test_owned_tasks_end_with_worker(make_bus):
    """Tasks that a worker creates end with it."""

    async def main():
        diary = Diary()
        async with hosted(make_bus, [diary]) as (runner,):
            task = diary.create_task(asyncio.Event().wait())
            other = diary.create_task(asyncio.Event().wait(), "other")
            assert await diary.cancel_task(other)
            await runner.remove_workers("diary")
            assert task.cancelled()

    run(main())
