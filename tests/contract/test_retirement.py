"""Retired queues, on every broker: nothing of a replica that is gone for good is lost, and order holds."""

import asyncio

from msgspec import structs

from pbus.bus.queues.retirement import Retired, retire
from pbus.bus.queues.store import Settlement
from pbus.codec import encode_message
from pbus.messages import (
    BusActivateWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    JobStatus,
)
from pbus.process.project.recovery_log import RecoveryLog
from pbus.process.supervisor.queue_admin import QueueAdmin
from pbus.routing_keys import owner_of
from pbus.settings import DeliveryOptions
from support.job_helpers import Asker, Note, NotingDoer, ask, hosted
from support.queue_helpers import DATA, SYSTEM, Writer, backlog, fetch, grow_old
from support.waiting import PATIENCE_S, run, until

NAMES = ["doer.1", "doer.2", "doer.3"]
LEFT = NAMES[:2]
KEYS = [f"call-{number}" for number in range(12)]


def entry(writer, address, *messages, lane=DATA):
    """Messages as a bus stores them."""
    ids = [message.id for message in messages]
    made = writer.to(address, *ids, lane=lane, ids=ids)
    return structs.replace(made, bodies=[encode_message(message) for message in messages])


async def queues_of(store):
    return [one.name for one in await store.stats(names_only=True)]


async def retired(store, name="doer.3", left=LEFT, limit_s=PATIENCE_S, consumer="supervisor"):
    return await retire(store, name, left, consumer=consumer, limit_s=limit_s)


def test_messages_of_a_retired_replica_are_handled(make_keeping_bus):
    """By the owners of their keys among those that are left, before what is sent to these later."""

    async def main():
        asker, doers = Asker(), [NotingDoer(name) for name in NAMES]
        mine = [key for key in KEYS if owner_of(key, NAMES) == "doer.3"]
        async with hosted(make_keeping_bus, [asker], doers[:2], doers[2:], []) as (*_, last, other):
            await ask(asker, "doer", "echo", key=mine[0])
            await last.remove_workers("doer.3")
            await until(lambda: not asker.registry.is_there("doer.3"))
            for number in range(3):
                for key in mine:
                    note = Note(source="asker", target="doer", number=number, key=key)
                    await asker.send_bus_message(note)
            job = asyncio.create_task(ask(asker, "doer", "echo", payload={"value": 7}, key=mine[0]))
            await until(lambda: asker.job_groups)
            async with asyncio.timeout(PATIENCE_S):
                while await backlog(other.bus.queues, "doer.3") <= 3 * len(mine):
                    await asyncio.sleep(0.01)
            await grow_old(other.bus.queues)
            result = await retired(other.bus.queues)
            assert Retired(moved=3 * len(mine) + 1) == result
            for key in mine:
                await asker.send_bus_message(Note(source="asker", target="doer", number=3, key=key))
            assert {"result": 7} == await job
            await until(lambda: sum(len(doer.notes) for doer in doers) == 4 * len(mine))
            for doer in doers[:2]:
                count = sum(owner_of(key, LEFT) == doer.name for key in mine)
                assert (
                    sorted(doer.notes) == doer.notes == [n for n in range(4) for _ in range(count)]
                )
            assert 0 == asker.bus.counters.undelivered

    run(main())


def test_what_only_the_retired_could_use_is_dropped(make_store):
    """Answers to its jobs, activations and broadcasts; cancels go to all that may have the job."""

    async def main():
        async with make_store() as store:
            for name in ("doer", *NAMES):
                await store.open(name, durable=True, shared=name == "doer")
            to = {"source": "asker", "target": "doer.3"}
            keyed = Note(**to, key="call-1", number=1)
            messages = [
                keyed,
                Note(**to, number=2),
                BusJobRequestMessage(**to, job_id="j", key="call-2"),
                BusJobRequestMessage(**to, job_id="k"),
                BusJobResponseMessage(**to, job_id="i", status=JobStatus.COMPLETED),
                BusActivateWorkerMessage(**to),
                Note(source="asker", number=3),
            ]
            writer = Writer()
            await store.put([entry(writer, "doer.3", *messages)])
            cancel = BusJobCancelMessage(**to, job_id="j")
            await store.put([entry(writer, "doer.3", cancel, lane=SYSTEM)])
            assert Retired(moved=5, dropped=3) == await retired(store)
            assert ["doer", *LEFT] == await queues_of(store)
            found = {
                name: [(message.lane, message.id) for message in await fetch(store, name)]
                for name in ("doer", *LEFT)
            }
            both = [(SYSTEM, cancel.id)]
            owned = {name: list(both) for name in LEFT}
            owned[owner_of("call-1", LEFT)].append((DATA, messages[0].id))
            owned[owner_of("call-2", LEFT)].append((DATA, messages[2].id))
            shared = [(DATA, messages[1].id), (DATA, messages[3].id)]
            assert {"doer": shared, **owned} == found

    run(main())


def test_targets_are_those_of_the_new_queue(make_store):
    """A worker refuses what is for another; all else of a message stays, and is opened by its type."""

    async def main():
        async with make_store() as store:
            for name in ("doer", *NAMES):
                await store.open(name, durable=True, shared=name == "doer")
            note = Note(source="ä", target="doer.3", key="ü", number=5)
            await store.put([entry(Writer(), "doer.3", note)])
            await retired(store)
            (found,) = await fetch(store, owner_of("ü", LEFT))
            target = owner_of("ü", LEFT).encode()
            assert encode_message(note).replace(b"doer.3", target) == found.body

    run(main())


def test_held_and_full_queues_are_waited_for(make_store):
    """Until the time is up; then the queue stays with what it holds, and a later call ends it."""

    async def main():
        async with make_store() as store:
            for name in ("doer", *NAMES):
                await store.open(name, durable=True, shared=name == "doer", max_backlog=3)
            notes = [Note(source="a", target="doer.3", number=number) for number in range(3)]
            await store.put([entry(Writer(), "doer.3", notes[0])])
            (held,) = await fetch(store, "doer.3", consumer="worker")
            await store.put([entry(Writer("b"), "doer.3", one) for one in notes[1:2]])
            await store.put([entry(Writer("c"), "doer.3", one) for one in notes[2:]])
            filler = [Note(source="a", target="doer", number=9) for _ in range(2)]
            await store.put([entry(Writer("d"), "doer", *filler)])

            assert Retired(moved=1, left=2) == await retired(store, limit_s=0.0)
            await store.settle([Settlement(held, how="requeue")])
            assert 2 == (await retired(store, limit_s=0.0, consumer="next")).left
            emptied = await fetch(store, "doer", consumer="worker")
            await store.settle([Settlement(one) for one in emptied])
            assert Retired(moved=2) == await retired(store, consumer="third")
            assert ["doer", *LEFT] == await queues_of(store)
            left = sorted(one.id for one in await fetch(store, "doer"))
            assert sorted([held.id, notes[2].id]) == left

    run(main())


def test_only_an_empty_queue_is_removed(make_store):
    """What is in it, or in flight, keeps it; what is not there at all is removed already."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "x", "y")])
            assert 2 == await store.purge("box", remove=True, if_empty=True)
            messages = await fetch(store)
            assert 2 == await store.purge("box", remove=True, if_empty=True)
            await store.settle([Settlement(messages[0])])
            assert 1 == await store.purge("box", remove=True, if_empty=True)
            await store.settle([Settlement(messages[1])])
            assert ["box"] == await queues_of(store)
            assert 0 == await store.purge("box", remove=True, if_empty=True)
            assert [] == await queues_of(store)
            assert 0 == await store.purge("box", remove=True, if_empty=True)

    run(main())


def test_last_replica_leaves_all_to_the_group(make_store):
    """Where none is left, messages wait in the queue that replicas share."""

    async def main():
        async with make_store() as store:
            await store.open("doer", durable=True)
            await store.open("doer.1", durable=True)
            note = Note(source="a", target="doer.1", key="k")
            await store.put([entry(Writer(), "doer.1", note)])
            assert Retired(moved=1) == await retired(store, "doer.1", [])
            assert [note.id] == [message.id for message in await fetch(store, "doer")]

    run(main())


def test_flood_is_moved_whole(make_store):
    """While a sender goes on; nothing is lost between the last look and the removal."""

    async def main():
        async with make_store() as store, make_store() as other:
            for name in ("doer", *NAMES):
                await store.open(name, durable=True, shared=name == "doer")
            writer, sent, refused = Writer(), [], []

            async def flood():
                for number in range(600):
                    note = Note(source="a", target="doer.3", key=KEYS[number % 12], number=number)
                    (result,) = await other.put([entry(writer, "doer.3", note)])
                    (sent if result.queues else refused).append(note.id)
                    if refused:
                        return

            flooding = asyncio.create_task(flood())
            await until(lambda: len(sent) > 10 or flooding.done())
            result = await retired(store)
            await flooding
            assert (len(sent), 0) == (result.moved, result.left)
            found = [one.id for name in LEFT for one in await fetch(store, name)]
            found += [one.id for name in LEFT for one in await fetch(store, name)]
            assert sorted(sent) == sorted(found)

    run(main())


def admin_of(store, folder, *names):
    """A supervisor's view of durable queues."""
    return QueueAdmin(
        store, RecoveryLog(folder), names, groups=frozenset({"doer"}), options=DeliveryOptions()
    )


def test_supervisor_retires_what_it_runs_no_longer(make_store, tmp_path, caplog):
    """Replicas by their keys, other workers with all they have; what is left is tried again, by the next one, too."""

    async def main():
        async with make_store() as store:
            first = admin_of(store, tmp_path, "doer", *NAMES, "other")
            assert [] == await first.open()
            notes = [Note(source="a", target="doer.3", key=key) for key in KEYS]
            await store.put([entry(Writer(), "doer.3", *notes[:6])])
            held = await fetch(store, "doer.3", consumer="worker")
            await store.settle([Settlement(held[0], how="dead_letter", reason="a test")])
            await store.put([entry(Writer("b"), "other", *notes[6:])])

            first._names.remove("doer.3")
            await first.remove("doer.3", limit_s=0.0)
            assert 5 == await backlog(store, "doer.3")
            await first.renew()
            assert 5 == await backlog(store, "doer.3")
            await store.requeue_held_by(["worker"])
            await first.keep_only(["doer", *LEFT])
            assert ["doer", *LEFT, "doer.3"] == await queues_of(store)
            await first.renew()
            assert ["doer", *LEFT] == await queues_of(store)
            assert 5 == sum([await backlog(store, name) for name in LEFT])
            assert "doer.3 is gone, and its 1 dead letters with it" in caplog.messages

            await first.add(["doer.3"], frozenset({"doer"}))
            assert ["doer", *LEFT, "doer.3"] == await queues_of(store)
            await first.renew()
            assert ["doer", *LEFT, "doer.3"] == await queues_of(store)

            second = admin_of(store, tmp_path, "doer", "doer.1")
            await second.open()
            assert ["doer", "doer.1"] == await queues_of(store)
            assert 5 == await backlog(store, "doer.1")

    run(main())
