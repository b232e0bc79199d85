"""What every broker promises of stored mail."""

import asyncio
import time

import pytest

from pbus.bus.queues.store import COMING_BACK_S, KEPT_UNTOUCHED_S, Settlement
from support.mail_books import Books
from support.mailing import (
    DATA,
    SYSTEM,
    Writer,
    backlog,
    be_away,
    fetch,
    handle,
    pass_time,
    texts,
)
from support.waiting import PATIENCE_S, finishes, run, until

LONG_S = 60.0  # longer than any test has patience for


@pytest.fixture
def no_polls(monkeypatch):
    """A take that waits looks again when it is woken, or something is due, and else not."""
    for module in ("redis", "pgmq"):
        monkeypatch.setattr(f"pbus.bus.{module}.fetcher.POLL_S", LONG_S)


def test_put_is_taken_once(make_mail):
    """A message is taken with the id and body that were put, and by nobody else meanwhile."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            outgoing = Writer().to("box", "hello", ids=["id-1"])
            (stored,) = await store.put([outgoing])
            (letter,) = await fetch(store)

            assert (1, False) == (stored.mailboxes, stored.is_full)
            assert ("box", DATA, "id-1") == (letter.mailbox, letter.lane, letter.id)
            assert (1, 0, False) == (letter.attempt, letter.crashes, letter.is_poison_suspect)
            assert ["hello"] == texts([letter])
            assert [] == await fetch(store)
            assert [] == await fetch(store, consumer="sibling")
            await handle(store, [letter])
            assert [] == await fetch(store)
            assert 0 == await backlog(store)

    run(main())


def test_bodies_come_back_unharmed(make_mail):
    """What JSON can say survives: NUL, a lone surrogate, huge integers, no text, a mebibyte."""
    bodies = [
        rb'{"text":"a\u0000b"}',
        rb'{"text":"\ud800"}',
        b'{"text":123456789012345678901234567890}',
        b'{"text":1e400,"nested":[[],{}],"text2":1.0}',
        '{"text":"smörgås 🍞"}'.encode(),
        b'{"text":"' + b"x" * 1024 * 1024 + b'"}',
    ]

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            writer = Writer()
            for body in bodies:
                outgoing = writer.to("box", "")
                outgoing.bodies[0] = body
                await store.put([outgoing])

            assert bodies == [letter.body for letter in await fetch(store)]

    run(main())


def test_order_is_kept(make_mail):
    """Letters come oldest first, over entries of many messages and of one."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "1", "2", "3"), writer.to("box", "4")])
            await store.put([writer.to("box", "5", "6")])

            assert ["1", "2", "3", "4", "5", "6"] == texts(await fetch(store))

    run(main())


def test_lanes_are_apart(make_mail):
    """Only the lanes asked for are taken."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "slow"), writer.to("box", "fast", lane=SYSTEM)])
            first = await store.fetch([("box", SYSTEM, 10)], consumer="consumer", wait_s=0)
            second = await store.fetch([("box", DATA, 10)], consumer="consumer", wait_s=0)

            assert (["fast"], [SYSTEM]) == (texts(first), [one.lane for one in first])
            assert (["slow"], [DATA]) == (texts(second), [one.lane for one in second])

    run(main())


def test_no_more_than_asked(make_mail):
    """Each mailbox gives as many letters as were asked of it."""

    async def main():
        async with make_mail() as store:
            writer = Writer()
            for name in ("a", "b"):
                await store.open(name, durable=True)
                await store.put(writer.each(name, "1", "2", "3", "4", "5"))
            letters = await store.fetch([("a", DATA, 3), ("b", DATA, 1)], consumer="h", wait_s=0)
            rest = await store.fetch([("a", DATA, 9), ("b", DATA, 2)], consumer="h", wait_s=0)

            assert [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1")] == sorted(
                (letter.mailbox, *texts([letter])) for letter in letters
            )
            assert [("a", "4"), ("a", "5"), ("b", "2"), ("b", "3")] == sorted(
                (letter.mailbox, *texts([letter])) for letter in rest
            )

    run(main())


def test_broadcast_reaches_every_mailbox(make_mail):
    """A broadcast is copied into every mailbox that exists, and handled apart in each."""

    async def main():
        async with make_mail() as store:
            for name in ("a", "b", "c"):
                await store.open(name, durable=True)
            (stored,) = await store.put([Writer().to("*", "news", "more")])
            await handle(store, await fetch(store, "a"))

            assert 3 == stored.mailboxes
            assert ["news", "more"] == texts(await fetch(store, "b"))
            assert [0, 2, 2] == [report.backlog for report in await store.stats()]

    run(main())


def test_unknown_mailbox_stores_nothing(make_mail):
    """Mail for a mailbox that does not exist is stored nowhere, and taking from it is no error."""

    async def main():
        async with make_mail() as store:
            stored = await store.put([Writer().to("nobody", "x"), Writer().to("*", "x")])

            assert [(0, False), (0, False)] == [(one.mailboxes, one.is_full) for one in stored]
            assert [] == await fetch(store, "nobody")
            assert [] == await store.stats()

    run(main())


def test_repeated_batch_is_ignored(make_mail):
    """A batch written again, as after a lost answer, is stored once; also what overlaps it."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            writer, again = Writer(), Writer()
            batch = [writer.to("box", "1", "2"), writer.to("box", "3"), writer.to("*", "4")]
            first = await store.put(batch)
            second = await store.put(batch)
            await store.put([again.to("box", "1", "2", "3", "new")])

            assert first == second
            assert ["1", "2", "3", "4", "new"] == texts(await fetch(store))
            assert 5 == await backlog(store)

    run(main())


def test_streams_are_numbered_apart(make_mail):
    """Other senders, other streams of a sender and other lanes have numbers of their own."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.put([Writer("a").to("box", "1")])
            await store.put([Writer("b").to("box", "2")])
            await store.put([Writer("a", stream=2).to("box", "3")])
            await store.put([Writer("a").to("box", "4", lane=SYSTEM)])
            await store.put([Writer("a").to("*", "5")])

            assert ["1", "2", "3", "4", "5"] == sorted(texts(await fetch(store)))

    run(main())


def test_numbers_may_have_gaps(make_mail):
    """A sender that gave up some messages goes on with the next number."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "1")])
            writer.to("box", "given", "up")
            await store.put([writer.to("box", "4")])

            assert ["1", "4"] == texts(await fetch(store))

    run(main())


def test_full_mailbox_refuses_whole(make_mail):
    """What does not fit is stored not at all, and fits once something was handled."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True, max_backlog=3)
            await store.open("other", durable=True, max_backlog=3)
            writer = Writer()
            await store.put([writer.to("box", "1", "2")])
            late = writer.to("box", "3", "4")
            refused, small, elsewhere = await store.put([
                late,
                writer.to("box", "5"),
                writer.to("other", "6"),
            ])

            assert (True, 0) == (refused.is_full, refused.mailboxes)
            assert small.is_full  # or it would overtake
            assert (False, 1) == (elsewhere.is_full, elsewhere.mailboxes)
            letters = await fetch(store)
            assert ["1", "2"] == texts(letters)
            assert (await store.put([late]))[0].is_full  # in flight counts
            await handle(store, letters[:1])
            assert not (await store.put([late]))[0].is_full
            assert ["3", "4"] == texts(await fetch(store))

    run(main())


def test_refused_keeps_its_place(make_mail):
    """Nothing of a lane overtakes a refused broadcast, nor a broadcast what was refused."""

    async def main():
        async with make_mail() as store:
            await store.open("full", durable=True, max_backlog=2)
            await store.open("free", durable=True)
            writer = Writer()
            await store.put([writer.to("full", "1")])
            batch = [
                writer.to("full", "2", "3"),
                writer.to("free", "4"),
                writer.to("*", "5"),
                writer.to("free", "6"),
                writer.to("free", "7", lane=SYSTEM),
            ]
            stored = await store.put(batch)

            assert [True, False, True, True, False] == [one.is_full for one in stored]
            assert ["7", "4"] == texts(await fetch(store, "free"))
            await handle(store, await fetch(store, "full"))
            stored = await store.put([
                one for one, was in zip(batch, stored, strict=True) if was.is_full
            ])
            assert [False, True, True] == [one.is_full for one in stored]

    run(main())


def test_repeated_batch_is_never_refused(make_mail):
    """What was stored before the answer was lost is confirmed, even if the mailbox is full now."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True, max_backlog=2)
            batch = [Writer().to("box", "1", "2")]
            await store.put(batch)
            (stored,) = await store.put(batch)

            assert (1, False) == (stored.mailboxes, stored.is_full)

    run(main())


def test_oversized_entry_fits_empty(make_mail):
    """An entry of more messages than a mailbox may hold gets in when nothing else is there."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True, max_backlog=2)
            writer = Writer()
            first = await store.put([writer.to("box", "1", "2", "3")])
            second = await store.put([writer.to("box", "4")])

            assert [False, True] == [first[0].is_full, second[0].is_full]

    run(main())


def test_waiting_take_is_woken(make_mail, no_polls):
    """A take that waits returns as soon as another process puts something."""

    async def main():
        async with make_mail() as here, make_mail() as there:
            await here.open("box", durable=True)
            writer = Writer()
            for text in ("cold", "warm"):
                waiting = asyncio.create_task(fetch(there, wait_s=LONG_S))
                await asyncio.wait({waiting}, timeout=0.3)
                assert not waiting.done()
                await here.put([writer.to("box", text)])
                letters = await finishes(waiting)

                assert [text] == texts(letters)
                await handle(there, letters)

    run(main())


def test_empty_take_ends_in_time(make_mail):
    """A take that finds nothing returns nothing when its time is over."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await fetch(store)
            started = time.monotonic()

            assert [] == await fetch(store, wait_s=0.3)
            assert 0.25 < time.monotonic() - started < PATIENCE_S

    run(main())


def test_take_can_be_interrupted(make_mail):
    """A take that waits returns early when told so, and nothing is lost by it."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            waiting = asyncio.create_task(fetch(store, wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.2)
            await store.wake_fetchers()

            assert [] == await finishes(waiting)
            await store.put([Writer().to("box", "x")])
            assert ["x"] == texts(await fetch(store, wait_s=PATIENCE_S))

    run(main())


def test_replicas_share_a_mailbox(make_mail):
    """Several processes take from one mailbox; each message reaches one of them.

    Who has got something keeps it until the other has got something, too.
    """
    total = 300

    async def main():
        async with make_mail() as here, make_mail() as first, make_mail() as second:
            await here.open("box", durable=True)
            taken: list[str] = []
            busy: set[str] = set()

            async def replica(store, holder):
                while len(taken) < total:
                    letters = await store.fetch([("box", DATA, 2)], consumer=holder, wait_s=0.2)
                    taken.extend(texts(letters))
                    if letters:
                        busy.add(holder)
                        await until(lambda: len(busy) == 2)
                    await handle(store, letters)

            async with asyncio.TaskGroup() as group:
                group.create_task(replica(first, "first"))
                group.create_task(replica(second, "second"))
                writer = Writer()
                for number in range(0, total, 10):
                    names = [str(one) for one in range(number, number + 10)]
                    await here.put(writer.each("box", *names))

            assert list(range(total)) == sorted(map(int, taken))
            assert {"first", "second"} == busy
            assert 0 == await backlog(here)

    run(main())


def test_every_idle_sibling_is_woken(make_mail):
    """When all replicas wait, two messages reach two of them, and a third one the third."""

    async def main():
        async with make_mail() as here, make_mail() as a, make_mail() as b, make_mail() as c:
            await here.open("box", durable=True)
            waiting = {
                asyncio.create_task(one.fetch([("box", DATA, 1)], consumer=name, wait_s=LONG_S))
                for name, one in {"a": a, "b": b, "c": c}.items()
            }
            await asyncio.wait(waiting, timeout=0.5)
            writer = Writer()
            await here.put(writer.each("box", "1", "2"))
            await until(lambda: sum(task.done() for task in waiting) == 2)
            await here.put(writer.each("box", "3"))

            found = [texts(await finishes(task)) for task in waiting]
            assert [["1"], ["2"], ["3"]] == sorted(found)

    run(main())


def test_wake_of_the_busy_is_passed_on(make_mail, no_polls):
    """A replica that stopped waiting does not keep the message from the one that still waits."""

    async def main():
        async with make_mail() as here, make_mail() as gone, make_mail() as idle:
            await here.open("box", durable=True)
            given_up = asyncio.create_task(fetch(gone, consumer="gone", wait_s=LONG_S))
            await asyncio.wait({given_up}, timeout=0.3)
            waiting = asyncio.create_task(fetch(idle, consumer="idle", wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.3)
            given_up.cancel()
            await asyncio.wait({given_up})
            await here.put([Writer().to("box", "x")])

            assert ["x"] == texts(await finishes(waiting))

    run(main())


def test_cancelled_takes_lose_nothing(make_mail):
    """Whenever a take is cancelled, what it had taken comes with a later one, once."""
    total = 400

    async def main():
        async with make_mail() as here, make_mail() as there:
            await here.open("box", durable=True)
            taken: list[str] = []

            async def write():
                writer = Writer()
                for number in range(0, total, 4):
                    names = [str(one) for one in range(number, number + 4)]
                    await here.put([writer.to("box", *names)])

            writing = asyncio.create_task(write())
            patience, most = 0.0, 0.1
            while len(taken) < total:
                patience = patience * 1.2 + 0.0003  # cut early, late, and now and then not
                if patience > most:
                    patience, most = 0.0, most * 1.2  # or a slow machine would take nothing ever
                taking = asyncio.create_task(fetch(there, wait_s=1))
                await asyncio.wait({taking}, timeout=patience)
                taking.cancel()
                await asyncio.wait({taking})
                if not taking.cancelled():
                    letters = taking.result()
                    taken.extend(texts(letters))
                    await handle(there, letters)
            await finishes(writing)

            assert list(range(total)) == sorted(map(int, taken))
            assert 0 == await backlog(here)

    run(main())


def test_holder_takes_on_several_tasks(make_mail):
    """One process may wait for different mailboxes at the same time."""

    async def main():
        async with make_mail() as here, make_mail() as there:
            waiting = []
            for name in ("a", "b"):
                await here.open(name, durable=True)
                waiting.append(asyncio.create_task(fetch(there, name, wait_s=LONG_S)))
            await asyncio.wait(waiting, timeout=0.3)
            await here.put([Writer().to("b", "for b")])
            assert ["for b"] == texts(await finishes(waiting[1]))
            assert not waiting[0].done()
            await here.put([Writer().to("a", "for a")])

            assert ["for a"] == texts(await finishes(waiting[0]))

    run(main())


def test_letters_settle_one_by_one(make_mail):
    """Messages that share an entry are settled apart; only the rest is given back."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "1", "2", "3", "4")])
            letters = await fetch(store)
            await handle(store, letters[:1])
            await handle(store, letters[2:3])

            assert 2 == await backlog(store)
            assert 2 == await store.requeue_held_by(["consumer"])
            again = await fetch(store, consumer="next")
            assert ["2", "4"] == sorted(texts(again))
            await handle(store, again)
            assert 0 == await backlog(store)

    run(main())


def test_retry_comes_back_later(make_mail, no_polls):
    """A retried letter comes back after its delay with one attempt more, and wakes a taker."""

    async def main():
        async with make_mail() as store:
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


def test_retry_wakes_the_waiting(make_mail, no_polls):
    """A retry reaches a take that was waiting before the letter was settled."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "x")])
            letters = await fetch(store)
            waiting = asyncio.create_task(fetch(store, wait_s=LONG_S))
            await asyncio.wait({waiting}, timeout=0.2)
            await store.settle([Settlement(letters[0], how="retry", delay_s=0.2)])

            assert ["x"] == texts(await finishes(waiting))

    run(main())


def test_buried_letters_stay_readable(make_mail):
    """A buried letter leaves the mailbox and says why it did; dropping it is for good."""

    async def main():
        async with make_mail() as store:
            for name in ("box", "other"):
                await store.open(name, durable=True)
                await store.put([Writer().to(name, name)])
            for name in ("box", "other"):
                (letter,) = await fetch(store, name)
                await store.settle([
                    Settlement(letter, how="dead_letter", reason=f"{name} is no good")
                ])
            (dead,) = await store.dead_letters("box")
            both = await store.dead_letters()

            assert [] == await fetch(store)
            assert 0 == await backlog(store)
            assert ("box", "box is no good") == (dead.mailbox, dead.reason)
            assert (1, 0) == (dead.attempt, dead.crashes)
            assert abs(time.time() - dead.dead_since) < 60
            assert 0 <= dead.age_s < 60
            assert ["box", "other"] == [one.mailbox for one in both]
            assert ["box"] == texts([dead])
            assert 1 == await store.drop_dead([dead.key])
            assert 0 == await store.drop_dead([dead.key, "nonsense"])
            assert ["other"] == [one.mailbox for one in await store.dead_letters()]

    run(main())


def test_revived_letters_begin_anew(make_mail):
    """A dead letter put back is taken again, its attempts counted from one."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "x", lane=SYSTEM)])
            (letter,) = await fetch(store)
            await store.settle([Settlement(letter, how="retry")])
            (letter,) = await fetch(store)
            await store.settle([Settlement(letter, how="dead_letter", reason="twice")])
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


def test_requeue_gives_back(make_mail):
    """What a dead process held goes to the next taker, marked suspect; others keep theirs."""

    async def main():
        async with make_mail() as store, make_mail() as sibling:
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


def test_crash_counts_what_had_started(make_mail):
    """A crash counts against suspect letters that had started, never against their neighbours."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "killer", "innocent")])
            await fetch(store, consumer="life-0")
            for life in (1, 2):
                await store.requeue_held_by([f"life-{life - 1}"])
                letters = await fetch(store, consumer=f"life-{life}")
                await store.mark_started([one for one in letters if texts([one]) == ["killer"]])
            await store.requeue_held_by(["life-2"])
            letters = await fetch(store, consumer="life-3")

            assert {"killer": 2, "innocent": 0} == {texts([one])[0]: one.crashes for one in letters}
            assert {1} == {one.attempt for one in letters}
            assert all(one.is_poison_suspect for one in letters)

    run(main())


def test_crashes_survive_retries(make_mail):
    """A retry keeps the count of crashes, a burial reports it."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "x")])
            await fetch(store, consumer="life-0")
            await store.requeue_held_by(["life-0"])
            await store.mark_started(await fetch(store, consumer="life-1"))
            await store.requeue_held_by(["life-1"])
            letters = await fetch(store, consumer="life-2")
            await store.mark_started(letters)
            await store.settle([Settlement(letters[0], how="retry")])
            (letter,) = await fetch(store, consumer="life-2")
            assert (2, 1) == (letter.attempt, letter.crashes)
            await store.settle([Settlement(letter, how="dead_letter", reason="enough")])

            (dead,) = await store.dead_letters()
            assert (2, 1) == (dead.attempt, dead.crashes)

    run(main())


def test_late_handled_is_remembered(make_mail):
    """A process thought dead that finishes after all: the copy given back is not handled again."""

    async def main():
        async with make_mail() as slow, make_mail() as other:
            await slow.open("box", durable=True)
            await slow.put([Writer().to("box", "1", "2")])
            letters = await fetch(slow, consumer="slow")
            await other.requeue_held_by(["slow"])
            await handle(slow, letters[:1])

            assert ["2"] == texts(await fetch(other, consumer="other"))
            assert 1 == await backlog(other)

    run(main())


def test_age_counts_from_the_first_storing(make_mail):
    """A letter that was tried again, or outlived its holder, is as old as it was."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "retried", "crashed")])
            retried, crashed = await fetch(store)
            first_taken_at = time.monotonic()
            await store.mark_started([crashed])
            await asyncio.sleep(0.05)  # what is not to be forgotten
            again = Settlement(retried, how="retry", delay_s=0.01, reason="a test")
            await store.settle([again])
            await store.requeue_held_by(["consumer"])
            found = []
            while len(found) < 2:
                found += await fetch(store, consumer="next", wait_s=PATIENCE_S)
            assert {"retried", "crashed"} == set(texts(found))
            assert all(letter.stored_at < first_taken_at + 0.01 for letter in found)

    run(main())


def test_late_retry_is_left_alone(make_mail):
    """Retrying or burying what was given back meanwhile changes nothing."""

    async def main():
        async with make_mail() as slow, make_mail() as other:
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
            assert [1, 1] == [letter.attempt for letter in again]
            assert [] == await other.dead_letters()
            assert [] == await fetch(other)

    run(main())


@pytest.mark.parametrize("how", ["ack", "retry", "requeue", "dead_letter"])
def test_settling_twice_changes_nothing(make_mail, how):
    """A settlement sent again, as after a lost answer, has no second effect."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.put([Writer().to("box", "1", "2", "3")])
            letters = await fetch(store)
            for settled in (letters[:1], letters[:1], letters[:2]):
                await store.settle([Settlement(letter, how=how) for letter in settled])
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


def test_handled_id_is_skipped(make_mail):
    """A message whose id was handled before, sent again under a new number, is not returned."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            await store.open("other", durable=True)
            writer = Writer()
            await store.put([writer.to("box", "once", ids=["same"])])
            await handle(store, await fetch(store))
            await store.put([writer.to("box", "again", "new", ids=["same", "fresh"])])
            await store.put([writer.to("box", "again", ids=["same"])])
            await store.put([writer.to("other", "here", ids=["same"])])
            letters = await fetch(store)

            assert ["new"] == texts(letters)
            assert 1 == await backlog(store)
            assert ["here"] == texts(await fetch(store, "other"))
            await handle(store, letters)
            assert 0 == await backlog(store)

    run(main())


def test_given_up_holder_may_take_again(make_mail):
    """A process that was only thought dead goes on taking."""

    async def main():
        async with make_mail() as store:
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


def test_unkept_mailbox_falls_with_its_lease(make_mail):
    """A mailbox that nobody keeps is gone once nobody touched it for a lease; its mail later."""

    async def main():
        async with make_mail(lease_s=LONG_S) as store:
            for name in ("box", "empty"):
                await store.open(name, durable=False)
            await store.open("kept", durable=True)
            await store.renew([])
            await store.put([Writer().to("box", "x")])
            await pass_time(store, LONG_S + 0.1)
            assert ["empty"] == await store.renew(["empty", "kept"])
            assert ["box", "kept"] == [report.name for report in await store.stats()]
            await pass_time(store, KEPT_UNTOUCHED_S)
            assert ["box"] == await store.renew(["box", "kept"])

            assert ["kept"] == [report.name for report in await store.stats()]
            assert [0, 1] == [
                one.mailboxes
                for one in await store.put([Writer("b").to(n, "y") for n in ("box", "*")])
            ]
            assert [] == await fetch(store)
            await store.open("box", durable=False)
            assert [] == await fetch(store)  # nothing of its former life

    run(main())


def test_mailboxes_outlive_an_outage(make_mail):
    """Nobody was in touch for longer than a lease: mailboxes wait a while for those who come back."""

    async def main():
        async with make_mail(lease_s=LONG_S) as store, make_mail(lease_s=LONG_S) as other:
            for name in ("back", "late"):
                await store.open(name, durable=False)
            await store.renew(["back", "late"])
            await be_away(store, LONG_S + 60)
            assert [] == await other.renew([])
            stored = await other.put([Writer().to("back", "x")])
            assert [] == await store.renew(["back"])
            assert ([1], ["x"]) == (
                [one.mailboxes for one in stored],
                texts(await fetch(store, "back")),
            )
            await pass_time(store, COMING_BACK_S + 0.1)
            assert ["late"] == await store.renew(["late"])

    run(main())


def test_touched_mailbox_stays(make_mail):
    """A mailbox that is touched in time outlives its first lease."""

    async def main():
        async with make_mail(lease_s=LONG_S) as store:
            await store.open("box", durable=False)
            await store.put([Writer().to("box", "x")])
            for _ in range(4):
                await pass_time(store, 0.4 * LONG_S)
                assert [] == await store.renew(["box"])

            assert ["x"] == texts(await fetch(store))

    run(main())


def test_kept_mailbox_stays_kept(make_mail):
    """Opening again changes nothing of what is in it, and who does not keep it changes nothing."""

    async def main():
        async with make_mail(lease_s=LONG_S) as store:
            await store.open("box", durable=False)
            await store.open("box", durable=True, max_backlog=2)
            writer = Writer()
            await store.put([writer.to("box", "1")])
            await store.open("box", durable=False, max_backlog=100)
            await pass_time(store, 2 * LONG_S)
            assert [] == await store.renew([])

            assert (await store.put([writer.to("box", "2", "3")]))[0].is_full
            assert ["1"] == texts(await fetch(store))

    run(main())


def test_reports_say_what_is_there(make_mail):
    """Backlog, in flight, age, tried before, dead: as they are."""

    async def main():
        async with make_mail() as store:
            await store.open("b", durable=True)
            await store.open("a", durable=True)
            await store.put([Writer().to("b", "1", "2", "3", "4", "5", "6")])
            letters = await fetch(store, "b")
            await store.settle([
                Settlement(letters[0]),
                Settlement(letters[1], how="retry"),
                Settlement(letters[2], how="retry", delay_s=60),
                Settlement(letters[3], how="dead_letter"),
            ])
            await asyncio.sleep(0.05)
            empty, full = await store.stats()

            assert ("a", 0, 0, None, 0, 0) == (
                empty.name, empty.backlog, empty.in_flight, empty.oldest_s, empty.retries, empty.dead,
            )  # fmt: skip
            assert ("b", 4, 2, 2, 1) == (
                full.name, full.backlog, full.in_flight, full.retries, full.dead,
            )  # fmt: skip
            assert 0.04 < full.oldest_s < 2 * PATIENCE_S
            await store.requeue_held_by(["consumer"])
            (again, *_) = await fetch(store, "b")
            await handle(store, [again])
            _, full = await store.stats()
            assert (3, 2) == (full.backlog, full.in_flight)

    run(main())


def test_purge_leaves_what_is_in_flight(make_mail):
    """Purging empties a mailbox of what nobody holds; what is in flight can still be settled."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put(writer.each("box", "held", "later", "1", "2"))
            held, later = await store.fetch([("box", DATA, 2)], consumer="consumer", wait_s=0)
            await store.settle([Settlement(later, how="retry", delay_s=60)])
            await store.put([writer.to("box", "3", "4", lane=SYSTEM)])

            assert 5 == await store.purge("box")
            (report,) = await store.stats()
            assert (1, 1, 0) == (report.backlog, report.in_flight, report.retries)
            await handle(store, [held])
            assert 0 == await backlog(store)
            await store.put([writer.to("box", "new")])
            assert ["new"] == texts(await fetch(store))

    run(main())


def test_removed_mailbox_leaves_nothing(make_mail):
    """A removed mailbox is gone with its dead letters, and what held its mail may still settle."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            writer = Writer()
            await store.put(writer.each("box", "1", "2", "3"))
            dead, held = await store.fetch([("box", DATA, 2)], consumer="consumer", wait_s=0)
            await store.settle([Settlement(dead, how="dead_letter")])

            assert 1 == await store.purge("box", remove=True)
            await store.settle([Settlement(held)])
            assert [] == await store.stats()
            assert [] == await store.dead_letters()
            assert 0 == (await store.put([writer.to("box", "x")]))[0].mailboxes
            assert 0 == await store.purge("box", remove=True)
            await store.open("box", durable=True)
            assert [] == await fetch(store)
            assert 0 == await backlog(store)

    run(main())


def test_names_do_not_collide(make_mail):
    """Mailboxes whose names contain each other share nothing."""
    names = ["x", "x.1", "x.10", "x-1", "x_1", "X"]

    async def main():
        async with make_mail() as store:
            writer = Writer()
            for name in names:
                await store.open(name, durable=True)
                await store.put([writer.to(name, name)])
            await store.purge("x", remove=True)

            assert [[name] for name in names[1:]] == [
                texts(await fetch(store, name)) for name in names[1:]
            ]

    run(main())


def test_shared_mailbox_gets_no_broadcast(make_mail):
    """What replicas share gets what is sent to it, but no copy of a broadcast."""

    async def main():
        async with make_mail() as store:
            await store.open("x", durable=True, shared=True)
            await store.open("x.1", durable=True)
            writer = Writer()
            stored = await store.put([writer.to("*", "all"), writer.to("x", "one")])

            assert [1, 1] == [one.mailboxes for one in stored]
            assert ["one"] == texts(await fetch(store, "x"))
            assert ["all"] == texts(await fetch(store, "x.1"))

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_books_balance_under_random_use(make_mail, seed):
    """Whatever is done in whatever order, each message is where it was last put, and counted so."""

    async def main():
        async with make_mail() as store:
            await store.open("box", durable=True)
            books = Books(store, seed)
            for _ in range(150):
                await books.do_something()
                await books.check()
            await books.finish()

    run(main())
