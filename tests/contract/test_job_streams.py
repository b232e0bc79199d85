"""A job's updates and pieces: their sender waits for their reader, and no other job does."""

import asyncio

import pytest

from pbus.errors import JobCancelledError, JobStateError
from pbus.handlers import PENDING, job
from pbus.messages import BusJobCreditMessage
from support.job_helpers import Asker, Doer, ask, hosted, leftovers
from support.waiting import PATIENCE_S, finishes, run, until

MANY = 200  # pieces; the window of an Asker, whose hooks hear each, is at most 64 of them
MOST_UNREAD = 64
FEW_UNREAD = 6  # where that hook is slow


class Streamer(Doer):
    """Sends pieces, and counts those that it could send."""

    def __init__(self, name="streamer"):
        super().__init__(name)
        self.poured = 0
        self.requests = []

    @job(name="pour")
    async def pour(self, request):
        self.requests.append(request)
        try:
            for number in range(request.payload["count"]):
                await self.send_job_stream_data(request.job_id, {"number": number})
                self.poured += 1
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("poured")
        await self.send_job_stream_end(request.job_id, {"total": request.payload["count"]})

    @property
    def is_held_up(self):
        """Whether a job here waits for its requester."""
        jobs = self._job_executor.responder.all()
        return any(
            job.send_window is not None and job.send_window._changed is not None for job in jobs
        )

    async def held_up(self):
        await until(lambda: self.is_held_up)
        return self.poured


class Hearing(Streamer):
    """Keeps what its hook hears."""

    def __init__(self):
        super().__init__()
        self.heard = []

    async def on_bus_message(self, message):
        self.heard.append(type(message))


class ByHand(Streamer):
    """Keeps its job open and sends pieces from a task of its own."""

    @job(name="later")
    async def later(self, request):
        self.pouring = asyncio.create_task(self.pour_on(request.job_id))
        return PENDING

    async def pour_on(self, job_id):
        while True:
            await self.send_job_stream_data(job_id, {"number": self.poured})
            self.poured += 1


class SlowHook(Asker):
    """Its hook takes 10 ms for each piece, and notes how many were sent by then."""

    def __init__(self, streamer):
        super().__init__()
        self.streamer = streamer

    async def on_job_stream_data(self, message):
        self.notes.append((message.data["number"], self.streamer.poured))
        await asyncio.sleep(0.01)


class Consulting(Asker):
    """Asks another worker about each piece that its hook hears."""

    async def on_job_stream_data(self, message):
        await ask(self, "doer", "wait")
        self.notes.append(message.data["number"])


def pour(asker, *names, count=MANY, **options):
    """A stream of pieces from one worker."""
    return asker.job(*(names or ["streamer"]), name="pour", payload={"count": count}, **options)


def test_slow_reader_holds_up_its_streamer_only(make_any_bus):
    """While a reader stands still few pieces are on their way, other jobs go on; none is lost."""

    async def main():
        asker, streamer, doer = Asker(), Streamer(), Doer()
        async with hosted(make_any_bus, [asker], [streamer, doer]):
            async with pour(asker) as j:
                first = await anext(j)
                assert await streamer.held_up() <= MOST_UNREAD
                for other in ("streamer", "doer"):
                    assert {"result": 7} == await ask(asker, other, "echo", payload={"value": 7})
                assert await streamer.held_up() <= MOST_UNREAD
                numbers = [first.data["number"], *[e.data.get("number") async for e in j]]
            assert [*range(MANY), None] == numbers
            assert ({"total": MANY}, 0) == (j.response, j.missed_events)
            assert [0, 0, 0] == leftovers(asker, streamer, doer)

    run(main())


def test_reading_is_optional(make_any_bus):
    """A requester that does not look at pieces gets its answer, by the block or by hooks."""

    async def main():
        asker, streamer = Asker(), Hearing()
        async with hosted(make_any_bus, [asker], [streamer]):
            async with pour(asker) as j:
                pass
            assert {"total": MANY} == j.response
            assert BusJobCreditMessage not in streamer.heard
            await asker.request_job("streamer", name="pour", payload={"count": MANY})
            await until(lambda: len(asker.told_of("completed")) == 2)
            assert 2 * MANY == streamer.poured

    run(main())


def test_waiting_hook_holds_up_its_streamer(make_any_bus):
    """A piece is read when its hook has ended, also where that waits for a job of its own."""

    async def main():
        asker, streamer, doer = Consulting(), Streamer(), Doer()
        async with hosted(make_any_bus, [asker], [streamer, doer]):
            count = MOST_UNREAD + 20
            await asker.request_job("streamer", name="pour", payload={"count": count})
            await until(
                lambda: (
                    streamer.ended or (streamer.is_held_up and len(doer.begun) == streamer.poured)
                )
            )
            (case,) = [
                one for one in asker._job_client.pending_jobs() if "streamer" in one.group.members
            ]
            assert 0 == case.group.members["streamer"].reading.read
            assert streamer.poured <= MOST_UNREAD
            doer.gate.set()
            await until(lambda: asker.told_of("completed"))
            await until(lambda: sorted(asker.notes) == list(range(count)))

    run(main())


def test_slow_hook_lets_others_in_between(make_any_bus):
    """A hook that takes 10 ms a piece has few of them before it: other messages come in between."""

    async def main():
        streamer, doer = Streamer(), Doer()
        asker = SlowHook(streamer)
        async with hosted(make_any_bus, [asker], [streamer, doer]):
            await asker.request_job("streamer", name="pour", payload={"count": 50})
            while len(asker.notes) < 50:
                await ask(asker, "doer", "echo", payload={"value": 7})
            assert list(range(50)) == [number for number, _ in asker.notes]
            assert max(poured - number for number, poured in asker.notes) <= FEW_UNREAD

    run(main())


def test_hook_beside_a_loop_is_a_reader(make_any_bus):
    """A piece that `async for` gave is read only when the hook that waits is done with it, too."""

    async def main():
        asker, streamer, doer = Consulting(), Streamer(), Doer()

        async def read(j):
            return [event.data["number"] async for event in j if event.type == "stream_data"]

        async with hosted(make_any_bus, [asker], [streamer, doer]), pour(asker) as j:
            reading = asyncio.create_task(read(j))
            await until(
                lambda: (
                    streamer.ended or (streamer.is_held_up and len(doer.begun) == streamer.poured)
                )
            )
            assert streamer.poured <= MOST_UNREAD
            doer.gate.set()
            assert list(range(MANY)) == await finishes(reading)

    run(main())


def test_reader_that_leaves_frees_its_streamer(make_any_bus):
    """Who stops reading, then waits for the answer, gets it."""

    async def main():
        asker, streamer = Asker(), Streamer()
        async with hosted(make_any_bus, [asker], [streamer]):
            async with pour(asker) as j:
                async for _ in j:
                    break
                await streamer.held_up()
            assert {"total": MANY} == j.response

    run(main())


def test_held_up_job_is_cancelled(make_any_bus):
    """A job that waits for its reader ends when it is given up."""

    async def main():
        asker, streamer = Asker(), Streamer()
        async with hosted(make_any_bus, [asker], [streamer]):
            with pytest.raises(LookupError):
                async with pour(asker):
                    await streamer.held_up()
                    raise LookupError
            await until(lambda: streamer.ended == ["cancelled"])
            await until(lambda: leftovers(asker, streamer) == [0, 0])

    run(main())


def test_dead_reader_frees_its_streamer(make_any_bus):
    """A reader whose process died holds up nothing: the job is cancelled, or goes on unheard."""

    async def main():
        asker, other, streamer = Asker(), Asker("other"), Streamer()
        async with hosted(make_any_bus, [asker], [other, streamer]) as (runner, _):
            reading = pour(asker, timeout=None)
            await reading.__aenter__()
            await streamer.held_up()
            await runner.registry.unregister("asker", "killed by a test")
            await until(lambda: streamer.ended)
            is_kept = streamer.bus.delivery == "at-least-once"
            assert ["poured" if is_kept else "cancelled"] == streamer.ended
            await until(lambda: leftovers(streamer) == [0])

    run(main())


def test_urgent_overtakes_the_held_up(make_any_bus):
    """Urgent updates and answers wait for no reader, and hide nothing that was sent before."""

    async def main():
        asker, streamer = Asker(), Streamer()
        async with hosted(make_any_bus, [asker], [streamer]):
            async with pour(asker) as j:
                await streamer.held_up()
                (request,) = streamer.requests
                await streamer.send_job_update(request.job_id, {"note": "hurry"}, urgent=True)
                await until(lambda: asker.told_of("update"))
                await streamer.held_up()
                await streamer.send_job_response(request.job_id, {"enough": True}, urgent=True)
                sent = streamer.poured
                await until(lambda: asker.told_of("completed"))
                events = [event.data async for event in j]
            assert {"enough": True} == j.response
            pieces = [data["number"] for data in events if "number" in data]
            assert list(range(sent)) == pieces
            assert {"note": "hurry"} in events

    run(main())


def test_group_members_are_held_up_apart(make_any_bus):
    """Each worker of a group waits by itself; all that they send is read."""

    async def main():
        asker, first, second = Asker(), Streamer("first"), Streamer("second")
        async with hosted(make_any_bus, [asker], [first, second]):
            options = {"name": "pour", "payload": {"count": 60}}
            async with asker.job_group("first", "second", **options) as group:
                await first.held_up()
                await second.held_up()
                seen = {"first": [], "second": []}
                async for event in group:
                    if event.type == "stream_data":
                        seen[event.worker_name].append(event.data["number"])
            assert {"first": list(range(60)), "second": list(range(60))} == seen
            assert 0 == group.missed_events

    run(main())


def test_pending_job_learns_of_its_end(make_any_bus):
    """A task that sends pieces of a pending job by hand is told when that is cancelled."""

    async def main():
        asker, streamer = Asker(), ByHand()
        async with hosted(make_any_bus, [asker], [streamer]):
            with pytest.raises(JobCancelledError):
                async with asker.job("streamer", name="later") as j:
                    await streamer.held_up()
                    await asker.cancel_job_group(j.job_id)
            with pytest.raises(JobStateError):
                await finishes(streamer.pouring)

    run(main())


def test_children_and_urgent_jobs_are_held_up_too(make_any_bus):
    """Also where a job came by the urgent lane, or from or to a child, all pieces are read."""

    async def main():
        parent, child, streamer, little = (
            Asker("parent"),
            Asker("child"),
            Streamer(),
            Streamer("little"),
        )
        async with hosted(make_any_bus, [parent], [streamer]) as (runner, _):
            await parent.add_workers(child, little)
            for name in ("child", "little"):
                await runner.registry.wait_ready(name, PATIENCE_S)
            for asker, name, priority in (
                (parent, "streamer", "high"),
                (child, "streamer", "normal"),
                (parent, "little", "normal"),
            ):
                async with pour(asker, name, priority=priority) as j:
                    await (little if name == "little" else streamer).held_up()
                    numbers = [e.data["number"] async for e in j if e.type == "stream_data"]
                assert (list(range(MANY)), {"total": MANY}) == (numbers, j.response)

    run(main())
