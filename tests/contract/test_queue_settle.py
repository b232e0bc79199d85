"""Settling fetched messages, on every broker: ack, retry, dead-letter, requeue, in any order and twice."""

import asyncio
import time

import pytest

from pbus.bus.queues.store import Settlement
from support.queue_helpers import (
    DATA,
    SYSTEM,
    Writer,
    backlog,
    fetch,
    handle,
    texts,
)
from support.waiting import PATIENCE_S, finishes, run

LONG_S = 60.0  # longer than any test has patience for


def test_messages_settle_one_by_one(make_store):
    """Messages that share an entry are settled apart; only the rest is given back."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "1", "2", "3", "4")])
            messages = await fetch(store)
            await handle(store, messages[:1])
            await handle(store, messages[2:3])

            assert 2 == await backlog(store)
            assert 2 == await store.requeue_held_by(["consumer"])
            again = await fetch(store, consumer="next")
            assert ["2", "4"] == sorted(texts(again))
            await handle(store, again)
            assert 0 == await backlog(store)

    run(main())


def test_retry_comes_back_later(make_store, no_polls):
    """A retried message comes back after its delay with one attempt more, and wakes a waiting fetch."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "a", "b")])
            first, second = await fetch(store)
            started = time.monotonic()
            await store.settle([Settlement(first, how="retry", delay_s=0.4, reason="it raised")])
            again = await fetch(store)
            assert not again or time.monotonic() - started > 0.35
            (again,) = again or await asyncio.wait_for(fetch(store, wait_s=LONG_S), PATIENCE_S)

            assert time.monotonic() - started > 0.35
            assert ("a", 2, first.id) == (*texts([again]), again.attempt, again.id)
            await store.settle([Settlement(again, how="retry")])
            (third,) = await fetch(store)
            assert ("a", 3) == (*texts([third]), third.attempt)
            await handle(store, [second, third])
            assert 0 == await backlog(store)

    run(main())


def test_retry_wakes_the_waiting(make_store, no_polls):
    """A retry reaches a take that was waiting before the message was settled."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "x")])
            messages = await fetch(store)
            waiting = asyncio.create_task(fetch(store, wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.2)
            await store.settle([Settlement(messages[0], how="retry", delay_s=0.2)])

            assert ["x"] == texts(await finishes(waiting))

    run(main())


def test_dead_letters_stay_readable(make_store):
    """A dead letter leaves its queue and has the reason; dropping it is final."""

    async def main():
        async with make_store() as store:
            for name in ("box", "other"):
                await store.open(name, durable=True)
                await store.put([Writer().to(name, name)])
            for name in ("box", "other"):
                (message,) = await fetch(store, name)
                await store.settle([
                    Settlement(message, how="dead_letter", reason=f"{name} is no good")
                ])
            (dead,) = await store.dead_letters("box")
            both = await store.dead_letters()

            assert [] == await fetch(store)
            assert 0 == await backlog(store)
            assert ("box", "box is no good") == (dead.queue, dead.reason)
            assert (1, 0) == (dead.attempt, dead.crashes)
            assert abs(time.time() - dead.dead_since) < 60
            assert 0 <= dead.age_s < 60
            assert ["box", "other"] == [one.queue for one in both]
            assert ["box"] == texts([dead])
            assert 1 == await store.drop_dead([dead.key])
            assert 0 == await store.drop_dead([dead.key, "nonsense"])
            assert ["other"] == [one.queue for one in await store.dead_letters()]

    run(main())


def test_requeued_dead_letters_start_over(make_store):
    """A dead letter put back is taken again, its attempts counted from one."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "x", lane=SYSTEM)])
            (message,) = await fetch(store)
            await store.settle([Settlement(message, how="retry")])
            (message,) = await fetch(store)
            await store.settle([Settlement(message, how="dead_letter", reason="twice")])
            (dead,) = await store.dead_letters()
            assert 2 == dead.attempt
            waiting = asyncio.create_task(fetch(store, wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.2)

            assert 1 == await store.requeue_dead([dead.key])
            (again,) = await finishes(waiting)
            assert (SYSTEM, 1, 0, False) == (
                again.lane, again.attempt, again.crashes, again.is_poison_suspect,
            )  # fmt: skip
            assert ["x"] == texts([again])
            assert [] == await store.dead_letters()
            assert 0 == await store.requeue_dead([dead.key])
            assert 1 == await backlog(store)

    run(main())


def test_requeue_gives_back(make_store):
    """What a dead process held goes to the next consumer, marked suspect; others keep theirs."""

    async def main():
        async with make_store() as store, make_store() as sibling:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put(writer.each("box", "1", "2", "3"))
            await store.fetch([("box", DATA, 2)], consumer="dead-1", wait_s=0)
            await fetch(store, consumer="alive")
            waiting = asyncio.create_task(fetch(sibling, consumer="sibling", wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.3)

            assert 2 == await store.requeue_held_by(["dead", "unheard-of"])
            again = await finishes(waiting)
            again += await fetch(sibling, consumer="sibling")
            assert ["1", "2"] == sorted(texts(again))
            assert [(True, 1, 0)] * 2 == [
                (o.is_poison_suspect, o.attempt, o.crashes) for o in again
            ]
            assert 0 == await store.requeue_held_by(["dead"])
            assert 3 == await backlog(store)

    run(main())


def test_crash_counts_what_had_started(make_store):
    """A crash counts against suspect messages that had started, never against their neighbours."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "killer", "innocent")])
            await fetch(store, consumer="incarnation-0")
            for number in (1, 2):
                await store.requeue_held_by([f"incarnation-{number - 1}"])
                messages = await fetch(store, consumer=f"incarnation-{number}")
                await store.mark_started([one for one in messages if texts([one]) == ["killer"]])
            await store.requeue_held_by(["incarnation-2"])
            messages = await fetch(store, consumer="incarnation-3")

            assert {"killer": 2, "innocent": 0} == {
                texts([one])[0]: one.crashes for one in messages
            }
            assert {1} == {one.attempt for one in messages}
            assert all(one.is_poison_suspect for one in messages)

    run(main())


def test_crashes_survive_retries(make_store):
    """A retry keeps the count of crashes, a dead letter has it."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "x")])
            await fetch(store, consumer="incarnation-0")
            await store.requeue_held_by(["incarnation-0"])
            await store.mark_started(await fetch(store, consumer="incarnation-1"))
            await store.requeue_held_by(["incarnation-1"])
            messages = await fetch(store, consumer="incarnation-2")
            await store.mark_started(messages)
            await store.settle([Settlement(messages[0], how="retry")])
            (message,) = await fetch(store, consumer="incarnation-2")
            assert (2, 1) == (message.attempt, message.crashes)
            await store.settle([Settlement(message, how="dead_letter", reason="enough")])

            (dead,) = await store.dead_letters()
            assert (2, 1) == (dead.attempt, dead.crashes)

    run(main())


def test_late_handled_is_remembered(make_store):
    """A process thought dead that finishes after all: the copy given back is not handled again."""

    async def main():
        async with make_store() as slow, make_store() as other:
            await slow.open("box", durable=True)
            await slow.put([Writer().to("box", "1", "2")])
            messages = await fetch(slow, consumer="slow")
            await other.requeue_held_by(["slow"])
            await handle(slow, messages[:1])

            assert ["2"] == texts(await fetch(other, consumer="other"))
            assert 1 == await backlog(other)

    run(main())


def test_late_retry_is_left_alone(make_store):
    """Retrying or dead-lettering a message that was requeued meanwhile changes nothing."""

    async def main():
        async with make_store() as slow, make_store() as other:
            await slow.open("box", durable=True)
            await slow.put([Writer().to("box", "1", "2")])
            first, second = await fetch(slow, consumer="slow")
            await other.requeue_held_by(["slow"])
            await slow.settle([
                Settlement(first, how="retry"),
                Settlement(second, how="dead_letter"),
            ])
            again = await fetch(other, consumer="other")

            assert ["1", "2"] == sorted(texts(again))
            assert [1, 1] == [message.attempt for message in again]
            assert [] == await other.dead_letters()
            assert [] == await fetch(other)

    run(main())


@pytest.mark.parametrize("how", ["ack", "retry", "requeue", "dead_letter"])
def test_settling_twice_changes_nothing(make_store, how):
    """A settlement sent again, as after a lost answer, has no second effect."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "1", "2", "3")])
            messages = await fetch(store)
            for settled in (messages[:1], messages[:1], messages[:2]):
                await store.settle([Settlement(message, how=how) for message in settled])
            (report,) = await store.stats()

            assert {"ack": 1, "retry": 3, "requeue": 3, "dead_letter": 1}[how] == report.backlog
            assert (2 if how == "retry" else 0) == report.retries
            assert 1 == report.in_flight
            assert (2 if how == "dead_letter" else 0) == len(await store.dead_letters())
            again = await fetch(store)
            assert (["1", "2"] if how in {"retry", "requeue"} else []) == sorted(texts(again))
            assert ([2, 2] if how == "retry" else [1] * len(again)) == [
                one.attempt for one in again
            ]

    run(main())


def test_given_up_holder_may_take_again(make_store):
    """A process that was only thought dead goes on taking."""

    async def main():
        async with make_store() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "1")])
            await fetch(store)
            await store.requeue_held_by(["consumer"])

            assert ["1"] == texts(await fetch(store, wait_s=PATIENCE_S))
            waiting = asyncio.create_task(fetch(store, wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.2)
            await store.requeue_held_by(["consumer"])
            found = await finishes(waiting)
            assert ["1"] == texts(found)
            await handle(store, found)
            assert 0 == await backlog(store)

    run(main())
