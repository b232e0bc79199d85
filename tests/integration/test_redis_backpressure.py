"""Back-pressure, addressing, priority and limits of the Redis bus."""

import asyncio
import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from pbus.bus import connect
from pbus.bus.local import decoder
from pbus.errors import BusFullError, MessageTooLargeError
from pbus.messages import BusSystemMessage
from support import slow_receiver
from support.listeners import Listener
from support.slow_receiver import Blob
from support.waiting import PATIENCE_S, happens

pytestmark = pytest.mark.redis


class Siren(BusSystemMessage):
    """A system message."""


def test_w03_blocked_receiver_loses_nothing(valkey, channel):
    """A receiver whose loop is blocked for seconds at full speed makes the sender wait."""
    total, size = 40_000, 2_000

    async def main():
        receiver = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(slow_receiver.__file__)), valkey.url, channel, str(total), "3",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert b"ready\n" == await receiver.stdout.readline()
        bus = connect(valkey.url, channel=channel, send_timeout=20)
        blob = "x" * size
        started = time.monotonic()
        async with bus:
            for number in range(total):
                await bus.send(Blob(source="a", target="sleepy", number=number, blob=blob))
            waited = time.monotonic() - started
            verdict = await asyncio.wait_for(receiver.stdout.readline(), 50)
            await receiver.wait()

        assert f"got {total} lost 0 in_order True\n" == verdict.decode()
        assert waited > 2  # it was held back while the receiver slept

    asyncio.run(main())


def test_w03_receiver_that_never_takes_is_an_error(valkey, channel):
    """A sender whose receiver handles nothing gets BusFullError; other receivers are served."""

    async def main():
        here = connect(valkey.url, channel=channel, send_timeout=0.5)
        there = connect(valkey.url, channel=channel)
        stuck = Listener("stuck", lambda _: asyncio.Event().wait())
        quick = Listener("quick")
        await there.subscribe(stuck)
        await there.subscribe(quick)
        async with here, there:
            with pytest.raises(BusFullError, match="'stuck'"):
                for number in range(10_000):
                    await here.send(
                        Blob(source="a", target="stuck", number=number, blob="x" * 2000)
                    )
            await here.send(Blob(source="a", target="quick", number=1))

            assert 1 == len(await quick.heard(1))

    asyncio.run(main())


def test_w03_dead_receiver_frees_its_senders(valkey, channel):
    """A sender out of credit goes on as soon as the receiver that held it back is gone."""

    async def main():
        here = connect(valkey.url, channel=channel, send_timeout=15)
        there = connect(valkey.url, channel=channel)
        await there.subscribe(Listener("stuck", lambda _: asyncio.Event().wait()))
        async with here:
            await there.start()

            async def flood():
                for number in range(3_000):
                    await here.send(
                        Blob(source="a", target="stuck", number=number, blob="x" * 2000)
                    )

            flooding = asyncio.create_task(flood())
            await happens(here._send_buffers["d"].blocking)
            await there.stop()
            await asyncio.wait_for(flooding, PATIENCE_S)

        assert here.counters.undelivered > 0

    asyncio.run(main())


def test_stranger_on_channel_blocks_none(valkey, channel):
    """A foreign subscriber that never grants credit does not stop the flow."""

    async def main():
        from redis.asyncio import Redis  # noqa: PLC0415

        stranger = Redis.from_url(valkey.url)
        spy = stranger.pubsub()
        await spy.subscribe(f"{{{channel}}}:d:w")
        here, there = (connect(valkey.url, channel=channel) for _ in range(2))
        listener = Listener("w")
        await there.subscribe(listener)
        async with here, there:
            for number in range(3000):
                await here.send(Blob(source="a", target="w", number=number, blob="x" * 1000))

            assert 3000 == len(await listener.heard(3000))
        await spy.aclose()
        await stranger.aclose()

    asyncio.run(main())


def test_w04_oversized_message_is_refused_here(valkey, channel):
    """A 20 MB message is an error at its sender and disturbs no other."""

    async def main():
        bus = connect(valkey.url, channel=channel)
        listener = Listener("w")
        await bus.subscribe(listener)
        async with bus:
            with pytest.raises(MessageTooLargeError, match="20,000,1"):
                await bus.send(Blob(source="a", target="w", number=1, blob="x" * 20_000_000))
            await bus.send(Blob(source="a", target="w", number=2))

            assert [2] == [message.number for message in await listener.heard(1)]

    asyncio.run(main())


def test_w04_large_message_within_limit_arrives(valkey, channel):
    """With max_message_bytes raised, 20 MB arrive whole, several in a row."""

    async def main():
        options = {"channel": channel, "max_message_bytes": 32 * 1024 * 1024}
        here, there = (connect(valkey.url, **options) for _ in range(2))
        listener = Listener("w")
        await there.subscribe(listener)
        async with here, there:
            for number in range(3):
                await here.send(Blob(source="a", target="w", number=number, blob="x" * 20_000_000))
            heard = await listener.heard(3, within=20)

            assert [(n, 20_000_000) for n in range(3)] == [(m.number, len(m.blob)) for m in heard]

    asyncio.run(main())


def test_w12_targeted_travels_to_its_process_only(valkey, channel):
    """Bytes for a worker elsewhere never reach a process that does not host it."""

    async def main():
        here, there, bystander = (connect(valkey.url, channel=channel) for _ in range(3))
        listener = Listener("w")
        await there.subscribe(listener)
        await bystander.subscribe(Listener("bystander"))
        received = []
        async with here, there, bystander:
            bystander._listeners["d"]._on_payload = received.append
            for number in range(500):
                await here.send(Blob(source="a", target="w", number=number))
            await listener.heard(500)

            assert [] == received

    asyncio.run(main())


def test_w13_system_overtakes_transport_backlog(valkey, channel):
    """A system message sent after a flood is handled before the flood's end."""

    async def main():
        here, there = (connect(valkey.url, channel=channel) for _ in range(2))
        heard_at: dict[str, int] = {}
        listener = Listener("w")

        async def handle(message):
            if isinstance(message, Siren):
                heard_at["siren"] = len(listener.messages)
            else:
                await asyncio.sleep(0)

        listener._handler = handle
        await there.subscribe(listener)
        total = 5_000
        async with here, there:
            flood = asyncio.gather(
                *(
                    here.send(Blob(source="a", target="w", number=n, blob="x" * 1200))
                    for n in range(total)
                )
            )
            await listener.heard(1)
            await here.send(Siren(source="a", target="w"))
            await flood
            await listener.heard(total + 1, within=30)

        assert heard_at["siren"] < total / 2

    asyncio.run(main())


def test_w14_stuck_handler_bounds_memory(valkey, channel):
    """100,000 messages of 1 KB for a handler that never returns: bounded queues, bounded memory."""

    async def main():
        here = connect(valkey.url, channel=channel, send_timeout=0.3)
        there = connect(valkey.url, channel=channel)
        await there.subscribe(Listener("stuck", lambda _: asyncio.Event().wait()))
        process = psutil.Process()
        async with here, there:
            before = process.memory_info().rss
            sent = 0
            try:
                for number in range(100_000):
                    await here.send(
                        Blob(source="a", target="stuck", number=number, blob="x" * 1000)
                    )
                    sent += 1
            except BusFullError:
                pass
            grown = process.memory_info().rss - before

            assert there.stats("stuck").queued <= 2_000
        assert sent < 10_000
        assert grown < 40_000_000

    asyncio.run(main())


def test_w32_garbage_on_the_channel_is_refused(valkey, channel, caplog, monkeypatch):
    """Broken bytes, foreign JSON, unknown types, bad fields and local types: counted, survived."""
    monkeypatch.setattr(decoder, "_COMPLAIN_EVERY_S", 1000.0)

    async def main():
        bus = connect(valkey.url, channel=channel)
        listener = Listener("w")
        await bus.subscribe(listener)
        async with bus:
            envelope = json.dumps([1, "foe", 1, "d", "w", 1, 1, 0])
            bodies = [
                "{not json",
                "[1,2,3]",
                '"text"',
                '{"type":"Unheard","source":"x"}',
                '{"type":"Blob","source":"x","number":"seven"}',
                '{"type":"BusJobRequestMessage","source":"x"}',
                '{"type":"BusAddWorkerMessage","source":"x","worker":1}',
                '{"type":"BusFrameMessage","source":"x","frame":{"type":"NoFrame"}}',
                "[" * 100_000,
            ]
            garbage = ["", "\x00\xff", "{}", "[]", "null", envelope, envelope.replace("1", "9", 1)]
            for text in garbage:
                valkey.command("PUBLISH", f"{{{channel}}}:d:w", text)
            for number, body in enumerate(bodies, 1):
                head = json.dumps([1, "foe", 1, "d", "w", number, 1, 0])
                valkey.command("PUBLISH", f"{{{channel}}}:d:w", f"{head}\n{body}")
            await bus.send(Blob(source="a", target="w", number=1))
            heard = await listener.heard(1)

            assert [Blob] == [type(message) for message in heard]
            assert len(garbage) + len(bodies) == bus.counters.refused

    asyncio.run(main())
    assert 1 == sum("refused so far" in record.message for record in caplog.records)


def test_follower_costs_no_flow(valkey, channel):
    """While a tap follows, the sender is neither slowed to a crawl nor held back."""

    async def main():
        here, there = (connect(valkey.url, channel=channel) for _ in range(2))
        listener = Listener("w")
        await there.subscribe(listener)
        total = 5_000
        async with here, there, here.tap() as tap:
            seen = 0

            async def follow():
                nonlocal seen
                async for item in tap:
                    seen += item.header.type == "Blob"
                    if seen == total:
                        return

            following = asyncio.create_task(follow())
            started = time.monotonic()
            for number in range(total):
                await here.send(Blob(source="a", target="w", number=number, blob="x" * 1000))
            await listener.heard(total)
            await asyncio.wait_for(following, PATIENCE_S)

            assert time.monotonic() - started < 10
            assert (total, 0, 0) == (seen, tap.missed, here.counters.undelivered)
            await here.send(Blob(source="a", target="nobody", number=1))
            await here._send_buffers["d"].queue.emptied.wait()
            assert 1 == here.counters.undelivered

    asyncio.run(main())
