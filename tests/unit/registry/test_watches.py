"""Standing orders: who is called when, and that no handler keeps another waiting."""

import asyncio
import logging

from pbus.registry.event_data import WorkerLostData, WorkerReadyData
from pbus.registry.table import WorkerJoined
from pbus.registry.watches import Watches
from support.waiting import happens, run


def ready(name="w", first=True):
    return WorkerJoined(WorkerReadyData(name, "r", "p.1"), first=first)


class Recorder:
    """A handler that keeps what it is told."""

    def __init__(self):
        self.heard = []
        self.called = asyncio.Event()

    async def __call__(self, data):
        self.heard.append(data.worker_name)
        self.called.set()


def test_watchers_of_group_and_replica():
    """A replica's watchers hear of it each time, its group's when it is the first."""

    async def main():
        watches, replica, group = Watches(), Recorder(), Recorder()
        watches.ready.add("x.1", replica)
        watches.ready.add("x", group)
        watches.notify(ready("x.1", first=True))
        watches.notify(ready("x.1", first=False))
        await happens(group.called)
        await watches.close()
        assert (["x.1", "x.1"], ["x.1"]) == (replica.heard, group.heard)

    run(main())


def test_loss_reaches_all_kinds():
    """A loss is told to watchers of the worker, of its group and of everybody."""

    async def main():
        watches, recorders = Watches(), [Recorder(), Recorder(), Recorder(), Recorder()]
        for name, recorder in zip(("x.1", "x", None, "y"), recorders, strict=True):
            watches.lost.add(name, recorder)
        watches.notify(WorkerLostData("x.1", "r", "p.1", "why"))
        await happens(recorders[2].called)
        assert [["x.1"], ["x.1"], ["x.1"], []] == [recorder.heard for recorder in recorders]
        await watches.close()

    run(main())


def test_same_watch_once():
    """The same name and handler is one watch, and called once."""

    async def main():
        watches, recorder = Watches(), Recorder()
        first, is_first_new = watches.ready.add("w", recorder)
        second, is_second_new = watches.ready.add("w", recorder)
        assert (True, False) == (is_first_new, is_second_new)
        assert first is second
        watches.notify(ready())
        await happens(recorder.called)
        assert ["w"] == recorder.heard
        await watches.close()

    run(main())


def test_bad_handlers_are_alone(caplog):
    """A handler that raises or hangs neither stops the next one nor the one who tells."""

    async def main():
        watches, recorder = Watches(), Recorder()

        async def hang(data):
            await asyncio.Event().wait()

        async def fail(data):
            raise LookupError(data.worker_name)

        for handler in (hang, fail, recorder):
            watches.ready.add("w", handler)
        watches.notify(ready())
        await happens(recorder.called)
        await watches.close()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert ["a watcher of w raised for"] == [
        record.getMessage().split(" Worker")[0] for record in caplog.records
    ]


def test_cancelled_watch_is_silent():
    """After cancel no call begins or goes on, and nothing is left of the watch."""

    async def main():
        watches, recorder, ended = Watches(), Recorder(), asyncio.Event()

        async def hang(data):
            await recorder(data)
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        watch, _ = watches.ready.add("w", hang)
        watches.notify(ready())
        await happens(recorder.called)
        watch.cancel()
        await happens(ended)
        watches.notify(ready())
        assert (["w"], []) == (recorder.heard, watches.ready.all())

    run(main())


def test_watch_may_cancel_itself():
    """A handler that cancels its own watch runs to its end."""

    async def main():
        watches, done = Watches(), asyncio.Event()

        async def once(data):
            watch.cancel()
            await asyncio.sleep(0)
            done.set()

        watch, _ = watches.ready.add("w", once)
        watches.notify(ready())
        await happens(done)
        assert [] == watches.ready.all()

    run(main())
