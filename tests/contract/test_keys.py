"""Keys on every bus: all messages and jobs of one key go to one replica, in order."""

import asyncio
from collections import defaultdict

import pytest

from pbus.bus.queues.store import QueueStats
from pbus.client import Client, MessageInput
from pbus.errors import (
    BusUnavailableError,
    JobCancelledError,
    MessageEncodeError,
    MessageInputError,
)
from pbus.frames import TextFrame
from pbus.handlers import job
from pbus.messages import BusFrameMessage, BusSystemMessage
from pbus.routing_keys import owner_of
from support.job_helpers import Asker, Doer, Note, NotingDoer, ask, hosted
from support.queue_helpers import grow_old
from support.waiting import run, until

NAMES = ["doer.1", "doer.2", "doer.3"]
KEYS = [f"call-{number}" for number in range(24)]
WRONG = ["", "a\nb", "\x7f", "x" * 257, "é" * 129, "\ud800", 17, b"call"]


class Urgent(BusSystemMessage):
    """Overtakes."""

    number: int


class Replica(Doer):
    """Remembers what came under which key, and from which sender."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self.came = []

    async def on_bus_message(self, message):
        if isinstance(message, (Note, Urgent)):
            self.came.append((message.key, message.source, message.number))

    @job(name="who")
    async def who(self, request):
        return {"by": self.name, "key": request.key}

    def numbers(self, key):
        return [number for found, _, number in self.came if found == key]


def replicas(*names):
    return [Replica(name) for name in names or NAMES]


def key_of(name, names=NAMES):
    """A key of this replica."""
    return next(key for key in KEYS if owner_of(key, names) == name)


async def send(worker, key, number, target="doer"):
    await worker.send_bus_message(Note(source=worker.name, target=target, number=number, key=key))


async def away(asker, name):
    """Wait until a requester knows that a replica has left."""
    await until(lambda: not asker.registry.is_there(name))


def test_a_key_sticks_to_a_replica(make_any_bus):
    """Frames of one call were spread over the recognisers; senders in two processes agree, and order holds."""

    async def main():
        first, second, doers = Asker("first"), Asker("second"), replicas()
        async with hosted(make_any_bus, [first], [second], doers[:1], doers[1:]):
            for number in range(5):
                for key in KEYS:
                    await asyncio.gather(send(first, key, number), send(second, key, number))
            await until(lambda: sum(len(doer.came) for doer in doers) == 10 * len(KEYS))
            for doer in doers:
                of_one = defaultdict(list)
                for key, source, number in doer.came:
                    assert doer.name == owner_of(key, NAMES)
                    of_one[key, source].append(number)
                assert {(0, 1, 2, 3, 4)} == {tuple(numbers) for numbers in of_one.values()}
            assert all(doer.came for doer in doers)

    run(main())


def test_jobs_of_a_key_go_to_its_replica(make_any_bus):
    """Jobs, groups of jobs, jobs of clients and messages of one key meet; a handler is told the key."""

    async def main():
        asker, doers, other = Asker(), replicas(), Replica("other")
        client = Client(make_any_bus())
        async with hosted(make_any_bus, [asker, other], doers), client:
            for key in KEYS[:6]:
                expected = {"by": owner_of(key, NAMES), "key": key}
                group = await asker.job_group("doer", "other", name="who", key=key)
                assert {"doer": expected, "other": {"by": "other", "key": key}} == group
                assert expected == await asker.job("doer", "who", key=key, priority="high")
                assert expected == await client.job("doer", "who", key=key)
                assert [expected["by"]] == await client.send("doer", "Note", {"number": 7}, key=key)
                await client.send_bus_message(
                    Note(source=client.name, target="doer", number=8, key=key)
                )
            assert {"by": "doer.2", "key": "k"} == await asker.job("doer.2", "who", key="k")
            await until(lambda: sum(len(doer.came) for doer in doers) == 12)
            for doer in doers:
                assert all(owner_of(key, NAMES) == doer.name for key, *_ in doer.came)
            assert client.unreached == {}

    run(main())


def test_jobs_without_waiting_have_keys(make_any_bus):
    """What is asked for without waiting goes to the same replica; all of one key begin in its order."""

    async def main():
        asker, doers, key = Asker(), replicas(), KEYS[0]
        owner = next(doer for doer in doers if doer.name == owner_of(key, NAMES))
        async with hosted(make_any_bus, [asker], doers), Client(make_any_bus()) as client:
            ids = [await client.request_job("doer", "wait", key=key) for _ in range(3)]
            await owner.has_begun(3)
            assert ids == owner.begun
            ids = [await asker.request_job("doer", name="wait", key=key) for _ in range(3)]
            await owner.has_begun(6)
            assert ids == owner.begun[3:]
            for doer in doers:
                doer.gate.set()

    run(main())


def test_urgent_messages_of_a_key_go_there_too(make_any_bus):
    """A system message, which without a key goes to all or any, finds the replica of its call."""

    async def main():
        asker, doers = Asker(), replicas()
        async with hosted(make_any_bus, [asker], doers), Client(make_any_bus()) as client:
            for number, key in enumerate(KEYS[:6]):
                message = Urgent(source="asker", target="doer", number=number, key=key)
                await asker.send_bus_message(message)
                assert [owner_of(key, NAMES)] == await client.send(
                    "doer", "Urgent", {"number": number}, key=key
                )
            await until(lambda: sum(len(doer.came) for doer in doers) == 12)
            for doer in doers:
                assert all(owner_of(key, NAMES) == doer.name for key, *_ in doer.came)

    run(main())


def test_keys_of_a_dead_replica_go_elsewhere(make_forgetting_bus):
    """At most once; keys of the others stay where they are."""

    async def main():
        asker, doers = Asker(), replicas()
        async with hosted(make_forgetting_bus, [asker], doers[:2], doers[2:]) as (*_, runner):
            for key in KEYS:
                await send(asker, key, 1)
            await until(lambda: sum(len(doer.came) for doer in doers) == len(KEYS))
            await runner.remove_workers("doer.3")
            await away(asker, "doer.3")
            for key in KEYS:
                await send(asker, key, 2)
            await until(
                lambda: (
                    sum(len(doer.came) for doer in doers[:2]) == 2 * len(KEYS) - len(doers[2].came)
                )
            )
            for key in KEYS:
                found = [doer.name for doer in doers if 2 in doer.numbers(key)]
                assert [owner_of(key, NAMES[:2])] == found
                if owner_of(key, NAMES) != "doer.3":
                    assert [owner_of(key, NAMES)] == found

    run(main())


def test_keys_of_a_dead_replica_wait(make_keeping_bus):
    """At least once: until it is back, in any process, in order; a job, too, and no other replica is told."""

    async def main():
        asker, doers, again = Asker(), replicas(), Replica("doer.3")
        key = key_of("doer.3")
        async with hosted(make_keeping_bus, [asker], doers[:2], doers[2:], []) as (
            *_,
            runner,
            other,
        ):
            await send(asker, key, 0)
            await until(lambda: doers[2].numbers(key) == [0])
            await runner.remove_workers("doer.3")
            await away(asker, "doer.3")
            for number in range(1, 4):
                await send(asker, key, number)
            asked = asyncio.create_task(ask(asker, "doer", "who", key=key))
            await send(asker, key_of("doer.1"), 9)
            await until(lambda: doers[0].came)
            await until(lambda: asker.job_groups)
            await other.add_workers(again)
            assert {"by": "doer.3", "key": key} == await asked
            assert [1, 2, 3] == again.numbers(key)
            assert [] == doers[1].came
            assert 0 == asker.bus.counters.undelivered

    run(main())


def test_cancel_reaches_the_replica_that_is_away(make_keeping_bus):
    """A job of a key that was cancelled while its replica was away is not done when that is back."""

    async def main():
        asker, doers, again = Asker(), replicas(), Replica("doer.3")
        key = key_of("doer.3")
        async with hosted(make_keeping_bus, [asker], doers[:2], doers[2:]) as (*_, runner):
            await ask(asker, "doer", "who", key=key)
            await runner.remove_workers("doer.3")
            await away(asker, "doer.3")
            with pytest.raises(JobCancelledError):
                async with asker.job("doer", name="wait", key=key) as asked:
                    await asker.cancel_job_group(asked.job_id, reason="a test")
            await runner.add_workers(again)
            assert {"by": "doer.3", "key": key} == await ask(asker, "doer", "who", key=key)
            await until(lambda: len(again.begun) == again.ended.count("cancelled"))

    run(main())


def test_inactive_replica_has_no_keys(make_any_bus):
    """A deactivated replica would drop data: its keys go to the others, until it is active again."""

    async def main():
        asker, doers, key = Asker(), replicas(), key_of("doer.2")
        async with hosted(make_any_bus, [asker], doers):
            await send(asker, key, 0)
            await until(lambda: doers[1].numbers(key) == [0])
            await asker.deactivate_worker("doer.2")
            await until(lambda: asker.registry.is_inactive("doer.2"))
            await send(asker, key, 1)
            fallback = owner_of(key, ["doer.1", "doer.3"])
            other = next(doer for doer in doers if doer.name == fallback)
            await until(lambda: other.numbers(key) == [1])
            assert fallback == (await ask(asker, "doer", "who", key=key))["by"]
            await asker.activate_worker("doer.2")
            await until(lambda: not asker.registry.is_inactive("doer.2"))
            await send(asker, key, 2)
            await until(lambda: doers[1].numbers(key) == [0, 2])

    run(main())


def test_new_replica_takes_its_share_only(make_any_bus):
    """Keys move to a replica that came, none between those that were there; what was sent before stays."""

    async def main():
        asker, doers, new = Asker(), replicas(), Replica("doer.4")
        doers[0].gate.clear()
        async with hosted(make_any_bus, [asker], doers, []) as (*_, runner):
            for key in KEYS:
                await send(asker, key, 1)
            await runner.add_workers(new)
            await until(lambda: len(asker.registry.ready("doer")) == 4)
            owners = asker.registry.owners
            grown = [*NAMES, "doer.4"]
            moved = [key for key in KEYS if owner_of(key, grown) == "doer.4"]
            async with asyncio.timeout(20):  # the sender's view follows within seconds
                while await owners.owner("doer", moved[0]) != "doer.4":
                    await asyncio.sleep(0.01)
            for key in KEYS:
                await send(asker, key, 2)
            everyone = [*doers, new]
            await until(lambda: sum(len(doer.came) for doer in everyone) == 2 * len(KEYS))
            for key in KEYS:
                before, after = (
                    [doer.name for doer in everyone if number in doer.numbers(key)]
                    for number in (1, 2)
                )
                assert [owner_of(key, NAMES)] == before
                assert [owner_of(key, grown)] == after == (["doer.4"] if key in moved else before)

    run(main())


def test_removed_queue_is_noticed_by_its_sender(make_keeping_bus):
    """A sender that has not heard yet that a replica is gone for good loses nothing."""

    async def main():
        asker, doers, key = Asker(), replicas(), key_of("doer.3")
        async with hosted(make_keeping_bus, [asker], doers[:2], doers[2:]) as (*_, runner):
            await send(asker, key, 0)
            await until(lambda: doers[2].numbers(key) == [0])
            await runner.remove_workers("doer.3")
            await grow_old(runner.bus.queues)
            await runner.bus.queues.purge("doer.3", remove=True)
            await send(asker, key, 1)
            other = next(one for one in doers if one.name == owner_of(key, NAMES[:2]))
            await until(lambda: other.numbers(key) == [1])
            assert {"by": other.name, "key": key} == await ask(asker, "doer", "who", key=key)
            assert (0, {}) == (asker.bus.counters.undelivered, asker.bus.counters.unreached)

    run(main())


def test_first_senders_keep_their_order(make_any_bus):
    """Also while the first one still learns which replicas there are."""

    async def main():
        asker, doers, key = Asker(), replicas(), KEYS[0]
        async with hosted(make_any_bus, [asker], doers):
            owner = next(doer for doer in doers if doer.name == owner_of(key, NAMES))
            sends = [asyncio.create_task(send(asker, key, number)) for number in range(50)]
            await asyncio.sleep(0)
            for number in range(50, 60):
                await send(asker, key, number)
            await asyncio.gather(*sends)
            await until(lambda: len(owner.came) == 60)
            assert list(range(60)) == owner.numbers(key)

    run(main())


def test_unreachable_index_is_waited_for(make_keeping_bus, monkeypatch):
    """A sender that cannot learn the replicas waits as for the broker itself, and is told at last."""

    async def main():
        asker, doers, key = Asker(), replicas(), KEYS[0]
        async with hosted(make_keeping_bus, [asker], doers) as (runner, _):
            store, answers = runner.bus.queues, [None, None]
            read = store.stats

            async def stats(*, names_only=False) -> list[QueueStats]:
                if answers:
                    answers.pop()
                    raise BusUnavailableError("the broker", "a test")
                return await read(names_only=names_only)

            monkeypatch.setattr(store, "stats", stats, raising=False)
            await send(asker, key, 1)
            await until(lambda: sum(len(doer.came) for doer in doers) == 1)
            answers.append(None)  # a later failure leaves what is known
            await send(asker, key, 2)
            monkeypatch.setattr(runner.bus, "send_timeout", 0.0)
            answers += [None] * 9
            with pytest.raises(BusUnavailableError):
                await send(asker, key, 3, target="others")

    run(main())


def test_worker_without_replicas_takes_any_key(make_any_bus):
    """A key is of no consequence there; nor for the sender itself, a child, or a broadcast."""

    async def main():
        asker, doer, other = Asker(), Replica("doer"), NotingDoer("other")
        async with hosted(make_any_bus, [asker], [doer, other]):
            for number, key in enumerate(KEYS[:5]):
                await send(asker, key, number)
                await send(asker, key, number, target=None)
                await send(asker, key, number, target="asker")
            assert {"by": "doer", "key": "k"} == await ask(asker, "doer", "who", key="k")
            await until(lambda: len(doer.came) == 10 and len(asker.notes) == 10)
            assert [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] == sorted(number for *_, number in doer.came)
            await until(lambda: [0, 1, 2, 3, 4] == other.notes)

    run(main())


def test_what_is_no_key_is_refused(make_any_bus):
    """By workers, clients and buses alike, before anything is sent."""

    async def refused(asker, client, bus, key):
        note = Note(source="asker", target="doer", key=key)
        for send_it in (asker.send_bus_message, client.send_bus_message, bus.send):
            with pytest.raises(MessageEncodeError, match="key"):
                await send_it(note)
        with pytest.raises(MessageEncodeError, match="key"):
            await bus.send_raw("Note", "doer", {}, source="asker", key=key)
        for sent in (
            client.send("doer", "Note", key=key),
            client.send_text("doer", "t", key=key),
        ):
            with pytest.raises(MessageInputError, match="key"):
                await sent
        with pytest.raises(ValueError, match="key"):
            await asker.job("doer", "who", key=key)
        with pytest.raises(ValueError, match="key"):
            await client.request_job("doer", "who", key=key)

    async def main():
        asker, doers, client = Asker(), replicas(), Client(make_any_bus())
        async with hosted(make_any_bus, [asker], doers) as (runner, _), client:
            for key in WRONG:
                await refused(asker, client, runner.bus, key)
            assert all([] == doer.came for doer in doers)

    run(main())


def test_tail_shows_keys(make_any_bus):
    """Beside the data, and the replica that was chosen."""

    async def main():
        asker, doers, key = Asker(), replicas(), key_of("doer.2")
        async with hosted(make_any_bus, [asker], doers), Client(make_any_bus()) as client:
            async with client.tail(type=["Note", "BusFrameMessage"]) as tail:
                await send(asker, key, 1)
                first = await anext(tail)
                await send(asker, None, 2)
                second = await anext(tail)
                await asker.send_bus_message(
                    BusFrameMessage(
                        source="asker", target="doer", frame=TextFrame(text="t"), key=key
                    )
                )
                third = await anext(tail)
            assert (key, "doer.2", {"number": 1}) == (first.key, first.target, first.data)
            assert (None, {"number": 2}) == (second.key, second.data)
            assert (key, "doer.2") == (third.key, third.target)

    run(main())


def test_unknown_types_travel_with_keys(make_keeping_bus):
    """A client that does not know a type sends it to the replica all the same."""

    async def main():
        doers, key = replicas(), key_of("doer.3")
        async with hosted(make_keeping_bus, doers), Client(make_keeping_bus()) as client:
            tail = client.tail(type="Strange")
            async with tail:
                message = MessageInput("Strange", {"x": 1}, key=key)
                await message.send(client.bus, source="cli-x", target="doer.3")
                seen = await anext(tail)
            assert (key, "doer.3", {"x": 1}) == (seen.key, seen.target, seen.data)

    run(main())
