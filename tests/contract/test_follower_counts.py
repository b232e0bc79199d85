"""A follower that filters counts what the workers count, on every bus."""

import asyncio

from pbus.bus.presence import Presence
from pbus.client import Attachment, Client
from pbus.errors import PbusError
from pbus.messages import BusDataMessage
from pbus.runner import WorkerRunner
from pbus_cli.live.channel_watch import ChannelWatch
from support.recorder import Recorder
from support.waiting import PATIENCE_S, finishes, run, until


class FollowedNote(BusDataMessage):
    """The one that is followed."""

    number: int


class FollowedNoise(BusDataMessage):
    """Passes beside it."""

    text: str = "x" * 200


class DisplayedNote(BusDataMessage):
    """What a display shows."""


async def started(bus, worker):
    """A runner with one worker, ready."""
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(worker)
    task = asyncio.create_task(runner.run(), name="runner of a test")
    await runner.registry.wait_ready(worker.name)
    return runner, task


async def followed(tail, expected):
    """So many messages of a tail."""
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(tail) for _ in range(expected)]


def test_follower_and_workers_agree(make_any_bus):
    """By type, by text and by condition, at full speed: nothing is missed, nothing shown twice."""

    async def main():
        here, there = make_any_bus(), make_any_bus()
        count = 100 if here.delivery == "at-least-once" else 600  # where each waits for the broker
        sender, taker = Recorder("sender"), Recorder("taker")
        running = [await started(there, taker), await started(here, sender)]
        await running[1][0].registry.wait_ready("taker")
        async with (
            Client(make_any_bus()) as client,
            client.tail(source="sender", type="FollowedNote") as by_type,
            client.tail(type="FollowedNote", pattern=r'"number":\d*0[,}]') as by_text,
            client.tail(
                match=f"data.number >= `{count - 50}`", exclude="FollowedNoise"
            ) as by_match,
        ):
            reading = asyncio.gather(
                followed(by_type, count), followed(by_text, count // 10), followed(by_match, 50)
            )
            for number in range(count):
                for message in (
                    FollowedNote(source="sender", target="taker", number=number),
                    FollowedNoise(source="sender", target="taker"),
                ):
                    await sender.send_bus_message(message)
            typed, found, matched = await reading
            missed = [tail.missed for tail in (by_type, by_text, by_match)]
        handled = there.edges.edge("sender", "taker", "FollowedNote")
        sent = here.edges.edge("sender", "taker", "FollowedNote")
        await until(lambda: (count, count) == (handled.handled, sent.sent))

        assert [0, 0, 0] == missed
        assert list(range(count)) == [one.data["number"] for one in typed]
        assert list(range(0, count, 10)) == [one.data["number"] for one in found]
        assert list(range(count - 50, count)) == [one.data["number"] for one in matched]
        sizes = sum(one.size_bytes for one in typed)
        assert there.edges.edge("sender", "taker", "FollowedNoise").handled <= count
        if sent.sent_bytes:  # none are counted of messages that stay within a process
            assert abs(sizes - sent.sent_bytes) <= 0.02 * sizes
        for runner, task in running:
            await runner.cancel("the test is over")
            await finishes(task)

    run(main())


def nowhere() -> Attachment:
    """A watch that is told its client."""
    raise PbusError


def test_display_tells_the_unreached_apart(make_any_bus):
    """Of a worker, and a name that never was: one message is marked, as by `pbus tail`."""

    async def main():
        here, there = make_any_bus(), make_any_bus()
        sender, taker = Recorder("display-sender"), Recorder("display-taker")
        running = [await started(there, taker), await started(here, sender)]
        await running[1][0].registry.wait_ready("display-taker")
        watch = ChannelWatch(nowhere)

        def marks():
            messages, _ = watch.traffic()
            shown = [one for one in messages if one.type == "DisplayedNote"]
            return {(one.target, one.is_reached) for one in shown}

        async with Client(make_any_bus()) as client, asyncio.timeout(PATIENCE_S):
            presence = Presence(client.bus, fresh_s=PATIENCE_S)
            following = asyncio.create_task(watch._tap(client, presence), name="the watch")
            for target in ("display-taker", "never-there"):
                while target not in {name for name, _ in marks()}:  # once it follows
                    await sender.send_bus_message(
                        DisplayedNote(source="display-sender", target=target)
                    )
                    await asyncio.sleep(0.02)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        assert {("display-taker", True), ("never-there", False)} == marks()
        for runner, task in running:
            await runner.cancel("the test is over")
            await finishes(task)

    run(main())
