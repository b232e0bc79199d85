"""Children on every backend: hosted by their parent's runner, known there only, ended with it."""

import asyncio

import pytest

from pbus.errors import DuplicateWorkerError
from pbus.messages import BusCancelWorkerMessage
from pbus.workers.base_worker import BaseWorker
from support.job_helpers import Asker, Doer, Note, NotingDoer, ask, hosted
from support.waiting import PATIENCE_S, run, until


class Parent(BaseWorker):
    """Remembers what it hears of its children."""

    def __init__(self, name="parent"):
        super().__init__(name)
        self.log = []

    async def on_worker_ready(self, data):
        self.log.append(("ready", data.worker_name))

    async def on_worker_failed(self, data):
        self.log.append(("failed", data.worker_name, data.error))

    async def stop(self):
        self.log.append("stop")


class Child(NotingDoer):
    """Tells its parent's log when it stops."""

    def __init__(self, name, log):
        super().__init__(name)
        self.log = log

    async def stop(self):
        self.log.append(("stop", self.name))


def test_child_works_within_runner(make_bus):
    """A child is watched by its parent, does jobs for the runner, and is unknown elsewhere."""

    async def main():
        parent, far = Parent(), Asker()
        async with hosted(make_bus, [parent], [far]) as (_, other):
            kid = Child("kid", parent.log)
            await parent.add_workers(kid)
            await until(lambda: parent.log == [("ready", "kid")])
            assert {"result": 1} == await ask(parent, "kid", "echo", payload={"value": 1})
            assert ([kid], parent) == (parent.children, kid.parent)
            assert "kid" not in other.registry
            assert not await other.bus.leases.activation("kid")
            assert [lease.name for lease in await other.bus.leases.leases()] == ["asker", "parent"]

    run(main())


def test_child_asks_far_worker(make_bus):
    """A child's jobs at workers elsewhere are answered to it."""

    async def main():
        parent, far = Parent(), Doer()
        async with hosted(make_bus, [parent], [far]):
            kid = Child("kid", parent.log)
            await parent.add_workers(kid)
            await until(lambda: parent.log)
            assert {"result": 2} == await ask(kid, "doer", "echo", payload={"value": 2})
            await far.send_bus_message(Note(source="doer", target=kid.address, number=5))
            await until(lambda: kid.notes == [5])

    run(main())


def test_same_child_name_elsewhere(make_bus, backend):
    """Children in different processes may share a name; each parent talks to its own."""
    if backend == "memory":
        pytest.skip("one bus is one process")

    async def main():
        parents = [Parent("one"), Parent("two")]
        async with hosted(make_bus, [parents[0]], [parents[1]]):
            for parent in parents:
                await parent.add_workers(Child("kid", parent.log))
            await until(lambda: all(parent.log for parent in parents))
            for parent in parents:
                parent.children[0].gate.set()
                await ask(parent, "kid", "wait")
            assert [1, 1] == [len(parent.children[0].begun) for parent in parents]

    run(main())


def test_children_end_first(make_bus):
    """A parent that ends lets its children finish, then stops."""

    async def main():
        parent = Parent()
        async with hosted(make_bus, [parent]) as (runner,):
            kids = [Child(name, parent.log) for name in ("a", "b")]
            await parent.add_workers(*kids, watch=False)
            await runner.registry.wait_ready("a", PATIENCE_S)
            await runner.registry.wait_ready("b", PATIENCE_S)
            job_id = await parent.request_job("a", name="wait")
            await kids[0].has_begun()
            removing = asyncio.create_task(runner.remove_workers("parent"))
            await until(lambda: ("stop", "b") in parent.log)
            assert job_id in kids[0].active_jobs
            kids[0].gate.set()
            await removing
            assert [("stop", "b"), ("stop", "a"), "stop"] == parent.log
            assert ["done"] == kids[0].ended

    run(main())


def test_cancelled_parent_cancels_children(make_bus):
    """A parent that is cancelled does not wait for its children, and they stop too."""

    async def main():
        parent = Parent()
        async with hosted(make_bus, [parent]) as (runner,):
            kid = Child("kid", parent.log)
            await parent.add_workers(kid)
            await until(lambda: parent.log)
            await parent.request_job("kid", name="wait")
            await kid.has_begun()
            await runner.bus.send(BusCancelWorkerMessage(source="test", target="parent"))
            await until(lambda: {"stop", ("stop", "kid")} <= set(parent.log))
            assert ["cancelled"] == kid.ended

    run(main())


def test_failed_child_is_reported(make_bus):
    """A parent hears that a child crashed, or reported an error; its name is free again."""

    class Broken(Child):
        async def start(self):
            raise LookupError("no such toy")

    async def main():
        parent = Parent()
        async with hosted(make_bus, [parent]):
            await parent.add_workers(Broken("kid", parent.log))
            await until(lambda: ("failed", "kid", "LookupError: no such toy") in parent.log)
            assert [] == parent.children
            kid = Child("kid", parent.log)
            await parent.add_workers(kid)
            await until(lambda: ("ready", "kid") in parent.log)
            await kid.send_bus_error_message("I am sad")
            await until(lambda: ("failed", "kid", "I am sad") in parent.log)

    run(main())


def test_refused_child_is_reported(make_bus):
    """A child whose name is taken on the runner is refused, and the parent hears of it."""

    async def main():
        parent, doer = Parent(), Doer("kid")
        async with hosted(make_bus, [parent, doer]):
            kid = Child("kid", parent.log)
            await parent.add_workers(kid, watch=False)
            await until(lambda: parent.log)
            assert ("failed", "kid") == parent.log[0][:2]
            assert [] == parent.children

    run(main())


def test_child_has_one_parent(make_bus):
    """A child is added once, under a name that no sibling has."""

    async def main():
        one, two = Parent("one"), Parent("two")
        async with hosted(make_bus, [one, two]):
            kid = Child("kid", one.log)
            await one.add_workers(kid)
            with pytest.raises(DuplicateWorkerError, match="child of 'one'"):
                await two.add_workers(kid)
            with pytest.raises(DuplicateWorkerError, match="another child of 'one'"):
                await one.add_workers(Child("kid", one.log))

    run(main())


def test_finished_child_comes_back(make_bus):
    """A child that has ended leaves its parent, and may be added again."""

    async def main():
        parent = Parent()
        async with hosted(make_bus, [parent]) as (runner,):
            kid = Child("kid", parent.log)
            for _ in range(2):
                await parent.add_workers(kid)
                await until(lambda: parent.log and parent.log[-1] == ("ready", "kid"))
                await runner.remove_workers("kid")
                assert [] == parent.children

    run(main())


def test_children_are_in_the_lease_of_their_root(make_bus):
    """The figures of a root worker have those below it that have started, each before its own."""

    async def main():
        parent = Parent()
        async with hosted(make_bus, [parent]) as (runner,):
            assert () == tuple(parent.lease_figures().children)
            middle, kid, idle = Parent("middle"), Child("kid", parent.log), BaseWorker("idle")
            await parent.add_workers(middle, Child("last", parent.log))
            await until(lambda: len(parent.lease_figures().children) == 2)
            await middle.add_workers(kid)
            await middle.add_workers(idle)
            await until(lambda: len(parent.lease_figures().children) == 4)
            await parent.deactivate_worker("idle")
            await until(lambda: not idle.active)
            assert {} == await ask(parent, "kid", "echo")

            children = parent.lease_figures().children
            assert [("middle", 1), ("kid", 2), ("idle", 2), ("last", 1)] == [
                (child.name, child.depth) for child in children
            ]
            assert [True, True, False, True] == [child.active for child in children]
            figures = {child.name: child for child in children}
            assert (kid.started_at, kid.sent) == (figures["kid"].started_at, figures["kid"].sent)
            assert figures["kid"].received >= 1

            await runner.registry.beat()
            (stored,) = [one for one in await runner.bus.leases.leases() if one.name == "parent"]
            assert [child.name for child in children] == [one.name for one in stored.children]
            kid.request_stop(drain=False)
            await until(lambda: len(parent.lease_figures().children) == 3)

    run(main())
