"""Types that only one side has: on each bus, with each promise of delivery."""

import asyncio
import functools
import logging

import msgspec
import pytest

from pbus import BaseWorker, codec
from pbus.bus import BusSubscriber, connect
from pbus.client import Client
from pbus.codec import Encoding, Header, decode_header
from pbus.errors import (
    MessageDecodeError,
    MessageEncodeError,
    MessageRefusedError,
    MessageTooLargeError,
)
from pbus.frames import OpaqueFrame, TextFrame
from pbus.messages import (
    BusDataMessage,
    BusFrameMessage,
    BusOpaqueMessage,
    BusOpaqueSystemMessage,
)
from support.job_helpers import hosted
from support.listeners import Listener
from support.waiting import PATIENCE_S, run, until


class OpaqueLine(BusDataMessage):
    """A type that this process has."""

    number: int


class Bridge(Listener):
    """Takes what it does not know."""

    takes_opaque = True


def unknown(target="bridge", number=1, kind=BusOpaqueMessage):
    return kind(source="a", target=target, type_name="NeverDefined", data=b'{"n": %d}' % number)


def pictured(target="bridge"):
    frame = OpaqueFrame(type_name="NeverFrame", data=b'{"n": 7}', metadata={"call": "17"})
    return BusFrameMessage(source="a", target=target, frame=frame)


def test_bridge_receives_what_it_does_not_know(make_any_bus):
    """Messages and frames of unknown classes arrive as they were sent, in order, and go on so."""

    async def main():
        async with make_any_bus() as bus, make_any_bus() as other:
            bridge, last = Bridge("bridge"), Bridge("last")
            await other.subscribe(bridge)
            await bus.subscribe(last)
            sent = [unknown(), pictured(), unknown(number=2)]
            for message in sent:
                await bus.send(message)
            assert sent == await bridge.heard(3)
            for message in bridge.messages:  # on to where its type is unknown, too
                await other.send(codec.known_form(type(message)(**_fields(message, target="last"))))
            back = await last.heard(3)
            assert [m.data for m in sent if isinstance(m, BusOpaqueMessage)] == [
                m.data for m in back if isinstance(m, BusOpaqueMessage)
            ]
            assert sent[1].frame == back[1].frame

    asyncio.run(main())


def _fields(message, **changed):
    return {name: getattr(message, name) for name in message.__struct_fields__} | changed


def test_ordinary_receivers_refuse_it(make_any_bus, caplog):
    """A worker that did not ask for them gets none; broadcasts are the bridge's business."""

    async def main():
        async with make_any_bus() as bus:
            worker, bridge = Listener("w"), Bridge("bridge")
            for one in (worker, bridge):
                await bus.subscribe(one)
            for target in ("w", None):
                await bus.send(unknown(target))
                await bus.send(pictured(target))
            await bus.send(OpaqueLine(source="a", target=None, number=3))

            assert [3] == [message.number for message in await worker.heard(1)]
            kinds = [type(message).__name__ for message in await bridge.heard(3)]
            assert ["BusOpaqueMessage", "BusFrameMessage", "OpaqueLine"] == kinds
            await until(lambda: (2, 2) == (bus.counters.refused, bus.counters.foreign))
            assert "its type is unknown here" in caplog.text

    asyncio.run(main())


def test_class_is_found_among_what_is_imported(make_any_bus):
    """Sent without its class it arrives as the class, also at a bridge; frames likewise."""

    async def main():
        async with make_any_bus() as bus:
            receivers = [Listener("w"), Bridge("bridge")]
            for one in receivers:
                await bus.subscribe(one)
                line = BusOpaqueMessage(
                    source="a", target=one.name, type_name="OpaqueLine", data=b'{"number":4}'
                )
                await bus.send(line)
                text = OpaqueFrame(type_name="TextFrame", data=b'{"text":"hi"}')
                await bus.send(BusFrameMessage(source="a", target=one.name, frame=text))
            for one in receivers:
                number, frame = await one.heard(2)
                assert OpaqueLine is type(number)
                assert TextFrame(text="hi") == frame.frame
            with pytest.raises(MessageDecodeError):
                await bus.send(
                    BusOpaqueMessage(source="a", target="w", type_name="OpaqueLine", data=b"{}")
                )
            with pytest.raises(MessageEncodeError):
                await bus.send(BusOpaqueMessage(source="a", target="w", type_name="X", data=b"[]"))

    asyncio.run(main())


def test_urgent_ones_overtake(make_any_bus):
    """An unknown message of the system lane comes before data that waits, and says its lane."""

    async def main():
        async with make_any_bus() as bus:
            release = asyncio.Event()

            async def hold(message):
                if isinstance(message, OpaqueLine):
                    await release.wait()

            bridge = Bridge("bridge", hold)
            await bus.subscribe(bridge)
            await bus.send(OpaqueLine(source="a", target="bridge", number=1))
            await bus.send(unknown(number=2))
            await bus.send(unknown(number=3, kind=BusOpaqueSystemMessage))
            assert [BusOpaqueSystemMessage] == [type(m) for m in await bridge.heard(1)]
            release.set()
            kinds = [type(m) for m in await bridge.heard(3)]
            assert [BusOpaqueSystemMessage, OpaqueLine, BusOpaqueMessage] == kinds

    asyncio.run(main())


def test_raw_messages_reach_it(make_any_bus):
    """What the command sends by the name of a type arrives, on a bus of objects, too."""

    async def main():
        async with make_any_bus() as bus:
            bridge = Bridge("bridge")
            await bus.subscribe(bridge)
            await bus.send_raw("NeverDefined", "bridge", {"n": 1}, source="a")
            await bus.send_raw("NeverDefined", "bridge", {"n": 2}, source="a", urgent=True)
            heard = await bridge.heard(2)
            assert {BusOpaqueMessage: {"n": 1}, BusOpaqueSystemMessage: {"n": 2}} == {
                type(message): message.fields() for message in heard
            }

    asyncio.run(main())


@pytest.mark.parametrize(("sends", "reads"), [("json", "msgpack"), ("msgpack", "json")])
@pytest.mark.parametrize("delivery", ["at-most-once", "at-least-once"])
@pytest.mark.redis
def test_encodings_meet(valkey, channel, delivery, sends, reads):
    """A bridge between buses of two encodings carries both; bytes become base64 in JSON only."""
    make = functools.partial(connect, valkey.url, channel=channel, delivery=delivery)

    async def main():
        async with make(encoding=sends) as bus, make(encoding=reads) as other:
            bridge, last = Bridge("bridge"), Bridge("last")
            await other.subscribe(bridge)
            await bus.subscribe(last)
            packed = codec.opaque_data({"x": b"\x00"}, "NeverDefined", Encoding.MSGPACK)
            for data in (b'{"x": 1.0}', packed):
                await asyncio.gather(
                    bus.send(OpaqueLine(source="a", target="bridge", number=1)),
                    bus.send(
                        BusOpaqueMessage(source="a", target="bridge", type_name="X", data=data)
                    ),
                    bus.send(OpaqueLine(source="a", target="bridge", number=2)),
                )
            data = [m.data for m in await bridge.heard(6) if isinstance(m, BusOpaqueMessage)]
            assert [b'{"x": 1.0}', packed if sends == "msgpack" else b'{"x":"AA=="}'] == data
            for one in data:  # and back
                await other.send(
                    BusOpaqueMessage(source="b", target="last", type_name="X", data=one)
                )
            assert [b'{"x": 1.0}', b'{"x":"AA=="}'] == [m.data for m in await last.heard(2)]

    asyncio.run(main())


def test_followers_see_the_type(make_any_bus):
    """`tail` shows the type and the fields that were sent."""

    async def main():
        async with make_any_bus() as bus, bus.tap() as tap:
            bridge = Bridge("bridge")
            await bus.subscribe(bridge)
            await bus.send(unknown())
            await bridge.heard(1)
            async with asyncio.timeout(PATIENCE_S):
                async for seen in tap:
                    if seen.header.type == "NeverDefined":
                        break
            assert ("a", "bridge") == (seen.header.source, seen.header.target)
            assert b'"n": 1' in seen.body

    asyncio.run(main())


def test_failed_one_is_a_dead_letter_that_can_be_requeued(make_keeping_bus):
    """A stored message of an unknown type is kept, retried and given back as any other."""

    async def main():
        async with make_keeping_bus(queue_options={"max_attempts": 1}) as bus:
            fails = True

            async def handle(message):
                if fails:
                    raise ValueError("not now")

            bridge = Bridge("bridge", handle)
            await bus.subscribe(bridge)
            await bus.send(unknown())
            dead = []

            async def is_dead():
                dead[:] = await bus.queues.dead_letters("bridge")
                return bool(dead)

            async with asyncio.timeout(PATIENCE_S):
                while not await is_dead():
                    await asyncio.sleep(0.01)
            assert "NeverDefined" == codec.decode_header(dead[0].body).type
            fails = False
            await bus.queues.requeue_dead([dead[0].key])
            assert [b'{"n": 1}'] == [message.data for message in await bridge.heard(1)]

    asyncio.run(main())


class Forwarder(BaseWorker):
    """Sends on what it does not know."""

    takes_opaque = True

    def __init__(self, name):
        super().__init__(name)
        self.seen = []

    async def on_bus_message(self, message):
        if isinstance(message, BusOpaqueMessage):
            self.seen.append(message)


class Ordinary(Forwarder):
    """A worker as most are."""

    takes_opaque = False


def test_worker_asks_for_them_by_an_attribute(make_any_bus, caplog):
    """One line in its class; a client's message passes the check of its receivers."""
    caplog.set_level(logging.WARNING)

    async def main():
        workers = [Forwarder("bridge"), Ordinary("w")]
        async with hosted(make_any_bus, workers), Client(make_any_bus()) as client:
            assert ["bridge"] == await client.send("bridge", "NeverDefined", {"n": 1})
            await client.send_bus_message(unknown("w"))
            await client.send_bus_message(unknown("bridge", 2))
            await until(lambda: len(workers[0].seen) == 2)
            assert [1, 2] == [message.fields()["n"] for message in workers[0].seen]
            await until(lambda: "its type is unknown here" in caplog.text)
            assert [] == workers[1].seen
            with pytest.raises(MessageRefusedError, match="its type is unknown there"):
                await client.send("w", "NeverDefined", {"n": 1})

    run(main())


class LineTaker(BusSubscriber):
    """Decodes by itself: what begins with an x is dropped."""

    takes_opaque = True

    def __init__(self, name):
        self.name = name
        self.lines = []
        self.wire_decoder = self.decode

    def decode(self, line):
        header = decode_header(line)
        if header.type.startswith("x"):
            return None
        return BusOpaqueMessage(
            source=header.source, target=header.target, type_name=header.type, data=line
        )

    async def on_bus_message(self, message):
        self.lines.append(message)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("delivery", ["at-most-once", "at-least-once"])
@pytest.mark.redis
def test_a_subscriber_with_a_decoder_of_its_own_gets_the_bytes(valkey, channel, delivery, encoding):
    """Of known and unknown types, targeted or not; others of the process get messages as ever."""
    make = functools.partial(
        connect, valkey.url, channel=channel, delivery=delivery, encoding=encoding
    )

    async def main():
        async with make() as bus, make() as sender:
            taker, bridge = LineTaker("taker"), Bridge("bridge")
            await bus.subscribe(taker)
            await bus.subscribe(bridge)
            data = b"\0\xff" if encoding == "msgpack" else "AP8="
            for kind, target in (
                ("xDropped", "taker"),
                ("NeverDefined", "taker"),
                ("NeverDefined", None),
            ):
                header = Header(
                    type=kind, source="a", target=target, id=f"{kind}-{target}", time=1.0
                )
                await sender.send_checked(header, {"data": data, "n": 1})
            await sender.send(OpaqueLine(source="a", target="taker", number=7))
            await until(lambda: len(taker.lines) == 3)
            decode = (msgspec.msgpack if encoding == "msgpack" else msgspec.json).decode
            fields = [decode(message.data) for message in taker.lines]
            assert ["NeverDefined", "NeverDefined", "OpaqueLine"] == [
                message.type_name for message in taker.lines
            ]
            assert ["taker", None, "taker"] == [one.get("target") for one in fields]
            assert [data, data, 7] == [one.get("data", one.get("number")) for one in fields]
            assert ["NeverDefined"] == [message.type_name for message in await bridge.heard(1)]

    asyncio.run(main())


@pytest.mark.redis
def test_what_is_sent_checked_is_bounded_and_text(valkey, channel):
    """Too large, or half a character: an error at the sender that names it."""

    async def main():
        async with connect(valkey.url, channel=channel, max_message_bytes=1000) as bus:
            header = Header(type="NeverDefined", source="a", target="b", id="1", time=1.0)
            with pytest.raises(MessageTooLargeError, match="NeverDefined"):
                await bus.send_checked(header, {"text": "x" * 1000})
            with pytest.raises(MessageEncodeError, match=r"NeverDefined.*half"):
                await bus.send_checked(header, {"fine": 1, "half": "\ud83d"})
            assert bus.counters.sent == 0

    asyncio.run(main())
