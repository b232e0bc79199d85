"""Entries and keys that pbus did not write, where its own belong."""

import asyncio
import logging

import msgspec
import pytest
from redis.asyncio import Redis

from pbus.bus import connect
from pbus.messages import BusDataMessage
from pbus.settings import DeliveryOptions
from support.listeners import Listener
from support.waiting import PATIENCE_S, run

pytestmark = pytest.mark.redis

pack = msgspec.msgpack.encode
ENTRIES = {
    "others' fields": {"a": "1"},
    "no body": {"i": "id", "c": "{}"},
    "no MessagePack": {"h": "\xc1", "b": "x"},
    "a number": {"h": pack(5), "b": "x"},
    "no sizes": {"h": pack([["id"]]), "b": "x"},
    "too few sizes": {"h": pack([["a", "b"], [1]]), "b": "x"},
    "sizes that are none": {"h": pack([["a"], ["x"]]), "b": "x"},
    "half a byte": {"h": pack([["a", "b"], [0.5, 0.5]]), "b": "x"},
    "too large": {"h": pack([["a"], [100]]), "b": "x"},
    "negative": {"h": pack([["a", "b"], [-1, 2]]), "b": "x"},
    "none at all": {"h": pack([[], []]), "b": ""},
    "strange marks": {"i": "id", "b": "{}", "m": "x y z"},
    "more than there is": {"i": "id", "b": "{}", "m": "1 0 0 1", "z": "1"},
    "an id of no text": {"i": b"\xff\xfe", "b": "{}"},
    "ids of no text": {"h": pack([[b"\xff"], [1]]), "b": "x"},
    "no message": {"i": "id", "b": "hello"},
}
KEYS = ("q:d", "q:s", "q:D", "last", "later", "done:0", "wait:d", "box")


class Chip(BusDataMessage):
    """A numbered message."""

    number: int


def test_foreign_entries_are_dead_letters(valkey, channel, caplog):
    """An entry of any kind becomes a dead letter with a reason; those around it are handled."""

    async def main():
        listener, number = Listener("w"), 0
        async with (
            Redis.from_url(valkey.url) as redis,
            connect(valkey.url, channel=channel, delivery="at-least-once") as bus,
        ):
            await bus.queues.open("w", durable=True)
            for fields in ENTRIES.values():
                await bus.send(Chip(source="a", target="w", number=number))
                await redis.xadd(f"{bus.queues._key}:q:d:w", fields)
                number += 1
            await bus.send(Chip(source="a", target="w", number=number))
            await bus.subscribe(listener)
            await listener.heard(number + 1)
            assert list(range(number + 1)) == [one.number for one in listener.messages]
            async with asyncio.timeout(PATIENCE_S):
                while len(dead := await bus.queues.dead_letters()) < number:
                    await asyncio.sleep(0.01)
                while (report := (await bus.queues.stats())[0]).backlog > 0 or report.in_flight:
                    await asyncio.sleep(0.01)
            named = [one for one in dead if one.reason.startswith("not written by pbus")]
            assert (len(ENTRIES), len(ENTRIES) - 1) == (len(dead), len(named))

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "were not written by pbus" in caplog.text
    assert "a bug in pbus" not in caplog.text


async def put_aside(redis, name):
    """Wait until a key of others has this name; what no message needs is found within a second."""
    async with asyncio.timeout(PATIENCE_S):
        while await redis.get(name) != b"mine":
            await asyncio.sleep(0.02)


def test_keys_of_other_types_are_put_aside(valkey, channel, caplog):
    """A key of another type, in any place, stops no process: it is kept under another name."""

    async def arrives(bus, listener, number, target):
        async with asyncio.timeout(PATIENCE_S):
            # News of what was lost with a key comes among them.
            while all(getattr(one, "number", None) != number for one in listener.messages):
                await bus.send(Chip(source="a", target=target, number=number))
                await asyncio.sleep(0.01)

    async def main():
        listener, other, number = Listener("w"), Listener("other"), 0
        delivery_options = DeliveryOptions(declared=frozenset({"w", "other"}))
        options = {
            "channel": channel,
            "delivery": "at-least-once",
            "delivery_options": delivery_options,
        }
        async with Redis.from_url(valkey.url) as redis, connect(valkey.url, **options) as bus:
            await redis.set(f"{bus.queues._key}:q:d:w", "before it was made")
            await bus.subscribe(listener)
            await bus.subscribe(other)
            for kind in KEYS:
                name = f"{bus.queues._key}:{kind}:w"
                await redis.delete(name)
                await redis.set(name, "mine")
                for receiver, target in ((listener, "w"), (other, "other"), (other, None)):
                    number += 1
                    await arrives(bus, receiver, number, target)
                await put_aside(redis, f"{bus.queues._key}:odd:{kind}:w")

    with caplog.at_level(logging.WARNING):
        run(main(), timeout=55)
    assert "stood in the way" in caplog.text
    assert "a bug in pbus" not in caplog.text


LAST = (1 << 64) - 1
BAD_VALUES = {
    "counted in words": lambda r, k: r.hset(f"{k}:box:w", mapping={"n": "x", "h": "-0", "big": "1e5"}),
    "counted too many": lambda r, k: r.hset(f"{k}:box:w", mapping={"n": 4294967296}),
    "counted less than none": lambda r, k: r.hset(f"{k}:box:w", mapping={"n": -5}),
    "no room": lambda r, k: r.hset(f"{k}:box:w", mapping={"max": -1, "n": 1}),
    "a room of words": lambda r, k: r.hset(f"{k}:box:w", mapping={"max": "x"}),
    "bytes in words": lambda r, k: r.hset(f"{k}:box:w", mapping={"b": "x", "maxb": "", "db": "-0", "df": "y"}),
    "too many bytes": lambda r, k: r.hset(f"{k}:box:w", mapping={"b": 1 << 40, "maxb": -1}),
    "handled in words": lambda r, k: r.hset(f"{k}:box:w", mapping={"gn": "x", "gt": "y"}),
    "no numbers of streams": lambda r, k: r.hset(f"{k}:last:w", mapping={"a|1|d": "x", "": "\xff"}),
    "retries of nothing": lambda r, k: r.zadd(f"{k}:later:w", {b"\xc1": 1, pack(["d", 5]): 1}),
    "retries of no message": lambda r, k: r.zadd(f"{k}:later:w", {pack(["d", {"id": "x"}]): 1}),
    "times in words": lambda r, k: r.mset({f"{k}:touched": "x", f"{k}:since": "y"}),
    "an index of bytes": lambda r, k: r.zadd(k, {b"\xff\n": 1e300}),
    "the last possible entry": lambda r, k: r.xadd(f"{k}:q:d:w", {"a": 1}, id=f"{LAST}-{LAST}"),
    "an empty incarnation": lambda r, k: r.zadd(f"{k}:gone", {"": 1e300, "\xff": 0}),
}  # fmt: skip


def numbers_of(listener):
    """What arrived; a queue that is made again reports that some were lost, too."""
    return [one.number for one in listener.messages if isinstance(one, Chip)]


def test_values_of_any_kind_stop_none(valkey, channel, caplog):
    """Whatever is written into a queue's own keys, messages arrive and reports are made."""

    async def main():
        listener, number = Listener("w"), 0
        delivery_options = DeliveryOptions(declared=frozenset({"w"}))
        options = {
            "channel": channel,
            "delivery": "at-least-once",
            "delivery_options": delivery_options,
        }
        async with Redis.from_url(valkey.url) as redis, connect(valkey.url, **options) as bus:
            await bus.subscribe(listener)
            for write in BAD_VALUES.values():
                await write(redis, bus.queues._key)
                number += 1
                await bus.send(Chip(source="a", target="w", number=number))
                async with asyncio.timeout(PATIENCE_S):
                    while number not in (numbers := numbers_of(listener)):
                        await asyncio.sleep(0.01)
                await bus.queues.stats()
            async with asyncio.timeout(PATIENCE_S):
                while any(one.backlog for one in await bus.queues.stats() if one.name == "w"):
                    await asyncio.sleep(0.01)
            assert list(range(1, number + 1)) == numbers

    run(main(), timeout=55)
    assert "a bug in pbus" not in caplog.text


def test_foreign_dead_letters_are_shown(valkey, channel):
    """What others wrote among the dead letters is listed, and never put back."""

    async def main():
        async with (
            Redis.from_url(valkey.url) as redis,
            connect(valkey.url, channel=channel, delivery="at-least-once") as bus,
        ):
            await bus.queues.open("w", durable=True)
            for fields in ENTRIES.values():
                await redis.xadd(f"{bus.queues._key}:dead:w", fields)
            dead = await bus.queues.dead_letters()
            assert [("not written by pbus", 1)] * len(ENTRIES) == [
                (d.reason, d.attempt) for d in dead
            ]
            assert 0 == await bus.queues.requeue_dead([one.key for one in dead])
            assert len(ENTRIES) == await bus.queues.drop_dead([one.key for one in dead])
            await bus.queues.purge("w")

    run(main())
