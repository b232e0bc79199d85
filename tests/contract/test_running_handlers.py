"""What the lease of a worker tells of its handlers and jobs, on every backend."""

import asyncio
import time

from pbus.handlers import job, worker_ready
from pbus.running_handlers import RunningHandlers
from pbus.workers.base_worker import BaseWorker
from support.job_helpers import Asker, Doer, Note, ask, hosted
from support.waiting import run, until


class Stuck(BaseWorker):
    """Waits in its handlers until the test lets it go on."""

    def __init__(self, name="stuck", **options):
        super().__init__(name, **options)
        self.gate = asyncio.Event()

    async def on_bus_message(self, message):
        if isinstance(message, Note):
            await self.gate.wait()

    @job(name="dig")
    async def dig(self, request):
        await self.gate.wait()
        return {"deep": True}


def running(worker):
    """The oldest handler as text."""
    return str(worker.lease_figures().handler)


async def stored(bus, name):
    """The lease of a worker as others read it."""
    return next(one for one in await bus.leases.leases() if one.name == name)


def test_lease_names_the_handler_in_progress(make_any_bus):
    """The lease has hook, type, source and begin while the handler waits, and nothing afterwards."""

    async def main():
        began = time.time()
        stuck, asker = Stuck(), Asker()
        async with hosted(make_any_bus, [stuck], [asker]) as (runner, other):
            assert stuck.lease_figures().handler is None
            await asker.send_bus_message(Note(source="asker", target="stuck", number=1))
            await until(lambda: running(stuck) == "on_bus_message of Note from asker")
            await runner.registry.beat()
            handler = (await stored(other.bus, "stuck")).handler
            assert "on_bus_message of Note from asker" == str(handler)
            assert began <= handler.since <= time.time()
            stuck.gate.set()
            await until(lambda: stuck.lease_figures().handler is None)
            await runner.registry.beat()
            assert (await stored(other.bus, "stuck")).handler is None

    run(main())


def test_oldest_of_several_jobs(make_any_bus):
    """Of handlers that run beside each other the oldest is told, until it has ended."""

    async def main():
        doer, asker = Doer(), Asker()
        async with hosted(make_any_bus, [doer], [asker]) as (runner, other):
            first = await asker.request_job("doer", name="wait")
            await doer.has_begun()
            assert running(doer) == "job wait of BusJobRequestMessage from asker"
            since = doer.lease_figures().handler.since
            second = asyncio.create_task(ask(asker, "doer", "wait"))
            await doer.has_begun(2)
            assert doer.lease_figures().handler.since == since
            await asker.cancel_job_group(first)
            await until(lambda: doer.lease_figures().done == 1)
            assert doer.lease_figures().handler.since > since
            doer.gate.set()
            await second
            assert {"result": 3} == await ask(asker, "doer", "echo", payload={"value": 3})
            await until(
                lambda: doer.lease_figures().done == 3 and doer.lease_figures().handler is None
            )
            await runner.registry.beat()
            assert 3 == (await stored(other.bus, "doer")).done

    run(main())


def test_hooks_and_children_count(make_bus):
    """A hook, start() and a child's handler are told like any other."""

    class Parent(Stuck):
        async def start(self):
            await asyncio.sleep(0)
            self.at_start = running(self)

        async def on_activated(self, args):
            self.at_activation = running(self)

        @worker_ready(name="asker")
        async def meet(self, data):
            await asyncio.sleep(0)
            self.at_meeting = running(self)

    async def main():
        parent, child, asker = Parent("parent"), Stuck("child"), Asker()
        async with hosted(make_bus, [parent], [asker]):
            await parent.add_workers(child)
            await until(
                lambda: hasattr(parent, "at_meeting") and parent.lease_figures().handler is None
            )
            assert ("start", "on_activated", "meet") == (
                parent.at_start,
                parent.at_activation,
                parent.at_meeting,
            )
            await until(lambda: child.active and child.started_at)
            await parent.send_bus_message(Note(source="parent", target="child", number=1))
            await until(lambda: parent.lease_figures().handler is not None)
            assert running(parent) == "child.on_bus_message of Note from parent"
            child.gate.set()

    run(main())


def test_cancelled_handler_is_forgotten(make_bus):
    """The end of a worker ends what it waits for, and nothing is left in its figures."""

    async def main():
        stuck, asker = Stuck(), Asker()
        async with hosted(make_bus, [stuck], [asker]) as (runner, _):
            await asker.send_bus_message(Note(source="asker", target="stuck", number=1))
            await until(lambda: stuck.lease_figures().handler is not None)
            await runner.remove_workers("stuck", timeout=0)
        assert stuck.lease_figures().handler is None

    run(main())


def test_names_are_labels():
    """Names that users' code gives become one short line each."""
    handlers = RunningHandlers()
    entry = handlers.begin("job \x1b[2J\n" + "x" * 300, Note(source="a", target="b"))
    oldest = handlers.oldest()
    assert oldest is not None
    assert oldest.name.startswith("job ?[2J?xxx")
    assert len(oldest.name) == 255
    handlers.end(entry)
    assert handlers.oldest() is None
