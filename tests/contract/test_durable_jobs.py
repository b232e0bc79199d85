"""Jobs on a bus that keeps messages: no loss, no stop and no backlog ends one, or is in its way."""

import asyncio
import time

import pytest

from pbus.bus.queues import consumer
from pbus.handlers import job
from pbus.jobs.executor import abandoned
from pbus.jobs.requester import lost_workers
from pbus.messages import BusEndWorkerMessage, BusJobRequestMessage
from support.job_helpers import Asker, Doer, Note, NotingDoer, ask, hosted
from support.waiting import PATIENCE_S, run, until

pytestmark = pytest.mark.redis


class Relay(Doer):
    """Its jobs need another worker's answer."""

    @job(name="relay")
    async def relay(self, request: BusJobRequestMessage) -> dict[str, int]:
        self.begun.append(request.job_id)
        await self.gate.wait()
        return await ask(self, "other", "echo", payload={"value": 1})


async def emptied(runner, name):
    """Wait until this queue holds nothing."""
    async with asyncio.timeout(PATIENCE_S):
        while {one.name: one.backlog for one in await runner.bus.queues.stats()}[name]:
            await asyncio.sleep(0.02)


async def asked_to_wait(asker, count, **options):
    """Ask for so many jobs, one after another, and do not wait for them; their ids."""
    return [await asker.request_job("doer", name="wait", **options) for _ in range(count)]


# Workers that are lost, or stop


def test_lost_worker_ends_no_part(make_keeping_bus, monkeypatch):
    """Where a lost worker's part ended as an error it stays open here; no worker is asked again."""
    monkeypatch.setattr(lost_workers, "LOSS_GRACE_S", 0.0)

    async def main():
        asker, doer, other = Asker(), Doer(), Doer("other")
        other.gate.set()
        options = {"name": "wait", "cancel_on_error": False, "retries": 1}
        async with hosted(make_keeping_bus, [asker], [doer], [other]) as (_, runner, _other):
            async with asker.job_group("doer", "other", **options) as group:
                await doer.has_begun()
                await runner.registry.unregister("doer", "killed by a test")
                await until(lambda: "doer" not in asker.registry)
                await ask(asker, "other", "echo")  # time enough for the loss to be borne
                assert "open" == group.statuses["doer"]
                doer.gate.set()
            assert {"doer": {"by": "doer"}, "other": {"by": "other"}} == group.responses
            assert [group.job_id] == doer.begun

    run(main())


def test_sibling_does_left_jobs(make_keeping_bus):
    """What a replica leaves undone is done by another, as the same job."""

    async def main():
        asker, first, second = Asker(), Doer("doer.1"), Doer("doer.2")
        second.gate.set()
        async with hosted(make_keeping_bus, [asker], [first], []) as (_, one, two):
            async with asker.job("doer", name="wait") as j:
                await first.has_begun()
                await two.add_workers(second)
                await one.remove_workers("doer.1", timeout=0.1)
            assert ({"by": "doer.2"}, "doer.2") == (j.response, j.response.worker)
            assert ([j.job_id], ["cancelled"]) == (second.begun, first.ended)

    run(main())


@pytest.mark.parametrize("drain", [False, True])
def test_stopped_worker_leaves_all(make_keeping_bus, drain):
    """Its next incarnation does what it had begun, or not, whether or not it was given time to end."""

    async def main():
        asker, first, second = Asker(), Doer(max_concurrency=1), Doer()
        second.gate.set()
        async with hosted(make_keeping_bus, [asker], [first]) as (_, runner):
            runner.end_timeout = 0.2
            asked = await asked_to_wait(asker, 3)
            await until(lambda: len(first.active_jobs) == 3 and first.begun)
            first.request_stop(drain=drain)
            await until(lambda: runner.get_worker("doer") is None)
            assert (asked[:1], ["cancelled"]) == (first.begun, first.ended)
            await runner.add_workers(second)
            await until(lambda: len(asker.told_of("completed")) == 3)
            assert sorted(asked) == sorted(second.begun)
            assert [] == asker.told_of("error")

    run(main())


def test_end_keeps_what_waits(make_keeping_bus):
    """A worker that is ended between stored messages leaves the rest to its next incarnation."""

    class Slow(NotingDoer):
        async def on_bus_message(self, message):
            await asyncio.sleep(0.02)
            await super().on_bus_message(message)

    async def main():
        asker, first, second = Asker(), Slow(), NotingDoer()
        async with hosted(make_keeping_bus, [asker], [first]) as (_, runner):
            for number in range(10):
                await asker.send_bus_message(Note(source="asker", target="doer", number=number))
            await asker.send_bus_message(BusEndWorkerMessage(source="asker", target="doer"))
            await until(lambda: runner.get_worker("doer") is None)
            await runner.add_workers(second)
            await emptied(runner, "doer")
            assert list(range(10)) == sorted(first.notes + second.notes)

    run(main())


# Requesters that are lost


def test_lost_requester_ends_no_job(make_keeping_bus):
    """A request is carried out, even if no requester is there for the answer."""

    async def main():
        asker, other, doer = Asker(), Asker("other"), Doer()
        async with hosted(make_keeping_bus, [asker], [other], [doer]) as (runner, *_):
            await asked_to_wait(asker, 1, timeout=None)
            await doer.has_begun()
            await runner.registry.unregister("asker", "killed by a test")
            await until(lambda: "asker" not in doer.registry)
            await ask(other, "doer", "echo")  # time enough for the loss to be borne
            doer.gate.set()
            await emptied(runner, "doer")
            assert ["done"] == doer.ended

    run(main())


def test_lost_child_ends_no_job(make_keeping_bus):
    """Nor does the loss of a whole runner end what its children asked for."""

    async def main():
        parent, child, other, doer = Asker("parent"), Asker("child"), Asker("other"), Doer()
        async with hosted(make_keeping_bus, [parent], [other], [doer]) as (runner, *_):
            await parent.add_workers(child)
            await runner.registry.wait_ready("child", PATIENCE_S)
            await asked_to_wait(child, 1, timeout=None)
            await doer.has_begun()
            await runner.registry.unregister("parent", "killed by a test")
            await until(lambda: "parent" not in doer.registry)
            await ask(other, "doer", "echo")  # time enough for the loss to be borne
            doer.gate.set()
            await emptied(runner, "doer")
            assert ["done"] == doer.ended

    run(main())


def test_overdue_stored_job_ends(make_keeping_bus, monkeypatch):
    """A deadline ends a job also where its requester is gone and cannot cancel it."""
    monkeypatch.setattr(abandoned, "OVERDUE_S", PATIENCE_S)
    monkeypatch.setattr(abandoned, "_SWEEP_S", 0.05)

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_keeping_bus, [asker], [doer]) as (runner, _):
            await asker.send_bus_message(
                BusJobRequestMessage(
                    source="cli", target="doer", job_id="j", job_name="wait", deadline=time.time()
                )
            )
            await doer.has_begun()
            monkeypatch.setattr(abandoned, "OVERDUE_S", 0.0)
            await until(lambda: doer.ended == ["cancelled"])
            await emptied(runner, "doer")

    run(main())


def test_late_stored_job_never_begins(make_keeping_bus):
    """A stored job past its deadline is not begun."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_keeping_bus, [asker], [doer]) as (runner, _):
            await asker.send_bus_message(
                BusJobRequestMessage(
                    source="cli",
                    target="doer",
                    job_id="j",
                    job_name="wait",
                    deadline=time.time() - 60.0,
                )
            )
            await emptied(runner, "doer")
            assert [] == doer.begun

    run(main())


# More jobs than a worker has hands


def test_full_worker_refuses_none(make_keeping_bus):
    """Jobs beyond max_queued_jobs wait like the others: they are kept anyway."""

    async def main():
        asker, doer = Asker(), Doer(max_concurrency=1, max_queued_jobs=2)
        async with hosted(make_keeping_bus, [asker], [doer]):
            asked = await asked_to_wait(asker, 6)
            await until(lambda: len(doer.active_jobs) == 6)
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 6)
            assert (asked, []) == (doer.begun, asker.told_of("error"))

    run(main())


def test_busy_replica_takes_no_more(make_keeping_bus):
    """Replicas take as many jobs as they have slots; the rest goes to the first free one."""

    async def main():
        replicas = one, two = [Doer(f"doer.{n}", max_concurrency=1) for n in (1, 2)]
        asker = Asker()
        async with hosted(make_keeping_bus, [asker], [one], [two]):
            asked = await asked_to_wait(asker, 6)
            await until(lambda: one.begun and two.begun)
            two.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 5)
            assert [1, 5] == [len(replica.begun) for replica in replicas]
            one.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 6)
            assert sorted(asked) == sorted(one.begun + two.begun)

    run(main())


@pytest.fixture
def few(monkeypatch):
    """Little is taken from the broker at once."""
    monkeypatch.setattr(consumer, "PREFETCH", 4)


@pytest.mark.usefixtures("few")
def test_answers_pass_waiting_jobs(make_keeping_bus):
    """A worker with more jobs in hand than it takes at once never got what they waited for."""

    async def main():
        asker, relay, other = Asker(), Relay(max_concurrency=2), Doer("other")
        relay.gate.set()
        async with hosted(make_keeping_bus, [asker], [relay], [other]):
            for _ in range(12):
                await asker.request_job("doer", name="relay")
            await until(lambda: len(asker.told_of("completed")) == 12)
            assert 12 == len(relay.begun)

    run(main())


@pytest.mark.usefixtures("few")
def test_cancel_passes_running_jobs(make_keeping_bus):
    """A worker with its hands full took no messages: its jobs could not even be cancelled."""

    async def main():
        asker, doer = Asker(), Doer()
        async with hosted(make_keeping_bus, [asker], [doer]):
            asked = await asked_to_wait(asker, 6, timeout=None)
            await doer.has_begun(6)
            await asker.cancel_job_group(asked[0])
            await until(lambda: doer.ended == ["cancelled"])
            doer.gate.set()
            await until(lambda: len(asker.told_of("completed")) == 5)

    run(main())


@pytest.mark.usefixtures("few")
def test_draining_worker_gets_answers(make_keeping_bus):
    """What comes while a worker ends is for its next incarnation, and not in the way of what it needs."""

    async def main():
        asker, other, first, second = Asker(), Doer("other"), Relay(), Relay()
        second.gate.set()
        async with hosted(make_keeping_bus, [asker], [other], [first]) as (_, _other, runner):
            asked = await asker.request_job("doer", name="relay")
            await first.has_begun()
            first.request_stop(drain=True)
            late = [f"late-{n}" for n in range(6)]
            for job_id in late:
                await asker.send_bus_message(
                    BusJobRequestMessage(
                        source="asker", target="doer", job_id=job_id, job_name="relay"
                    )
                )
            first.gate.set()
            await until(lambda: runner.get_worker("doer") is None)
            await until(lambda: asker.told_of("completed"))
            assert [asked] == first.begun
            await runner.add_workers(second)
            await until(lambda: sorted(second.begun) == late)
            await emptied(runner, "doer")

    run(main())
