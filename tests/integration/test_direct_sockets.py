"""Processes of one host hand messages to each other: nothing lost, nothing twice, order kept."""

import asyncio
import contextlib
import os
import random
import socket
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from pbus.bus import connect
from pbus.bus.direct import direct_receiver, direct_routes, inbound_link
from pbus.bus.direct.direct_frames import HEADER
from pbus.bus.direct.host_sockets import IS_SUPPORTED, socket_name
from pbus.messages import BusDataMessage, BusSystemMessage, Lane
from pbus.settings import BusSettings
from support import slow_receiver
from support.listeners import Listener
from support.slow_receiver import Blob
from support.waiting import PATIENCE_S, run, until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(not IS_SUPPORTED, reason="no abstract sockets here"),
]
KEY = "a-key-of-the-direct-sockets"


class DirectNote(BusDataMessage):
    """A numbered message."""

    number: int
    text: str = ""


class DirectAlert(BusSystemMessage):
    """A numbered urgent message."""

    number: int


class DirectNews(BusDataMessage):
    """A numbered broadcast."""

    number: int


class DirectWorkerNews(BusDataMessage):
    """A numbered broadcast for those that want news of workers."""

    number: int
    is_news: ClassVar[bool] = True


@pytest.fixture
def make_bus(valkey, channel):
    """Makes unstarted buses of one channel, with direct sockets if not told otherwise."""

    def make(**options):
        options = {"direct": True, "send_timeout": PATIENCE_S, **options}
        return connect(valkey.url, channel=channel, delivery="at-most-once", **options)

    return make


@contextlib.asynccontextmanager
async def running(*buses):
    """Buses started, and stopped whatever happens."""
    async with contextlib.AsyncExitStack() as stack:
        for bus in buses:
            await stack.enter_async_context(bus)
        yield


def links_of(bus):
    """The sending ends of a bus, by receiver and lane."""
    return bus._direct.outbound.routes.links


def numbers(listener, kind=DirectNote, source=None):
    """The numbers of one kind of message, as they were heard."""
    return [
        one.number
        for one in listener.messages
        if type(one) is kind and (source is None or one.source == source)
    ]


async def until_direct(bus, there, listener, *, lane=Lane.DATA):
    """Send until the socket of a lane is used; returns how many messages that took."""
    sent = 0
    while (there.incarnation, lane) not in links_of(bus) or not links_of(bus)[
        there.incarnation, lane
    ].is_welcome:
        kind = DirectNote if lane is Lane.DATA else DirectAlert
        await bus.send(kind(source="a", target=listener.name, number=sent))
        sent += 1
        await listener.heard(sent, kind=kind)
    return sent


def test_messages_pass_the_broker_by(make_bus):
    """Once the receiver is known its messages go by the socket, and its answers, too; counts are exact."""

    async def main():
        here, there, home, far = make_bus(), make_bus(), Listener("home"), Listener("far")
        await here.subscribe(home)
        await there.subscribe(far)
        async with running(here, there):
            first = await until_direct(here, there, far)
            published = []
            write = here._direct.outbound._transport.write_nowait
            here._direct.outbound._transport.write_nowait = lambda *args: (
                published.append(args) or write(*args)
            )
            for number in range(first, 300):
                await here.send(DirectNote(source="a", target="far", number=number))
            await far.heard(300)
            await until_direct(there, here, home)
            assert list(range(300)) == numbers(far)
            assert [] == published
            (edge,) = [one for one in here.edges.edges() if one.target == "far"]
            (taken,) = [one for one in there.edges.edges() if one.target == "far"]
            assert (300, 300, 0) == (edge.sent, taken.handled, there.counters.lost)

    run(main())


@pytest.mark.parametrize("seed", range(4))
def test_order_over_cuts(make_bus, seed, monkeypatch):
    """Sockets are cut at either end at any time, in both directions; each sender's order holds."""
    monkeypatch.setattr(direct_routes, "_AGAIN_S", 0.0)
    chance = random.Random(seed)
    key = KEY if seed % 2 else None

    async def send(bus, name, target, count):
        for number in range(count):
            text = "x" * chance.choice((0, 10, 3_000, 80_000))
            await bus.send(DirectNote(source=name, target=target, number=number, text=text))
            if chance.random() < 0.1:
                await bus.send(DirectAlert(source=name, target=target, number=number))
            if chance.random() < 0.05:
                ends = (
                    here._direct.outbound.routes,
                    there._direct.outbound.routes,
                    here._direct.inbound,
                    there._direct.inbound,
                )
                chance.choice(ends).cut()
            if chance.random() < 0.3:
                await asyncio.sleep(0)

    async def main():
        nonlocal here, there
        here, there = make_bus(key=key), make_bus(key=key)
        home, far = Listener("home"), Listener("far")
        await here.subscribe(home)
        await there.subscribe(far)
        async with running(here, there):
            await asyncio.gather(
                send(here, "a", "far", 400),
                send(here, "b", "far", 400),
                send(there, "c", "home", 400),
            )
            await asyncio.gather(far.heard(800, kind=DirectNote), home.heard(400, kind=DirectNote))
            assert list(range(400)) == numbers(far, source="a") == numbers(far, source="b")
            assert list(range(400)) == numbers(home)
            urgent = numbers(far, DirectAlert, "a")
            assert sorted(set(urgent)) == urgent
            assert (0, 0) == (here.counters.lost, there.counters.lost)

    here = there = None
    run(main())


@pytest.mark.parametrize("seed", range(2))
def test_broadcasts_keep_their_place(make_bus, seed):
    """A receiver hears a sender's messages and broadcasts in order, though they go two ways."""
    chance = random.Random(seed)

    async def main():
        here, there, far = make_bus(), make_bus(), Listener("far")
        await there.subscribe(far)
        async with running(here, there):
            first = await until_direct(here, there, far)
            for number in range(first, 300):
                is_news = chance.random() < 0.3
                message = (
                    DirectNews(source="a", number=number)
                    if is_news
                    else DirectNote(source="a", target="far", number=number)
                )
                await here.send(message)
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
            heard = await far.heard(300)
            assert list(range(300)) == [one.number for one in heard]
            assert 1 == len(links_of(here))

    run(main())


@pytest.mark.parametrize("kind", [DirectNews, DirectWorkerNews])
def test_broadcast_does_not_overtake_what_the_socket_did_not_take(make_bus, kind):
    """Where a socket is full, what it could not take is published before a broadcast."""

    async def main():
        here, there, far = make_bus(), make_bus(), Listener("far")
        await there.subscribe(far)
        async with running(here, there):
            first = await until_direct(here, there, far)
            link = links_of(here)[there.incarnation, Lane.DATA]
            link.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            for number in range(first, first + 5):
                text = "x" * 10_000
                await here.send(DirectNote(source="a", target="far", number=number, text=text))
            await here.send(kind(source="a", number=first + 5))
            await until(lambda: [first + 5] == numbers(far, kind))
            heard = [one.number for one in far.messages if type(one) in {DirectNote, kind}]
            assert list(range(first + 6)) == heard
            assert not link.is_open

    run(main())


def test_urgent_overtakes(make_bus):
    """Each lane has its own socket: an urgent message is heard while data waits for a handler."""

    async def main():
        here, there = make_bus(), make_bus()
        release = asyncio.Event()

        async def handle(message):
            if type(message) is DirectNote and message.number >= 0:
                await release.wait()

        far = Listener("far", handle)
        await there.subscribe(far)
        async with running(here, there):
            await here.send(DirectNote(source="a", target="far", number=-1))
            await far.heard(1)
            await until(lambda: here._send_buffers[Lane.DATA].stream("far").known)
            for number in range(100):
                await here.send(DirectNote(source="a", target="far", number=number))
            there.presences.append(Knows("far", there.incarnation))
            here.presences.append(Knows("far", there.incarnation))
            await until_direct(here, there, far, lane=Lane.SYSTEM)
            assert [-1] == numbers(far)
            release.set()
            await far.heard(100, kind=DirectNote)
            assert {Lane.DATA, Lane.SYSTEM} == {lane for _, lane in links_of(here)}

    run(main())


class Knows:
    """A registry that knows one worker."""

    def __init__(self, name, process):
        self._name, self._process = name, process

    def holder(self, name):
        """The process of the worker."""
        return self._process if name == self._name else None

    def is_over(self, process):
        """None is over."""
        return False

    def was_holder(self, name, process):
        """None was."""
        return False


def test_follower_sees_direct_messages(make_bus):
    """A follower that comes later sees what goes by the socket, once each, and misses nothing."""

    async def main():
        here, there, watching, far = make_bus(), make_bus(), make_bus(), Listener("far")
        await there.subscribe(far)
        async with running(here, there, watching):
            first = await until_direct(here, there, far)
            async with watching.tap() as tap:
                for number in range(first, first + 50):
                    await here.send(DirectNote(source="a", target="far", number=number))
                seen = []
                async with asyncio.timeout(PATIENCE_S):
                    while len(seen) < 50:
                        seen.append(await anext(aiter(tap)))
                assert [
                    b'"number":%d' % one in seen[one - first].body
                    for one in range(first, first + 50)
                ]
                assert 0 == tap.missed
                assert (there.incarnation, Lane.DATA) in links_of(here)

    run(main())


def test_follower_catches_up_with_copies_under_way(make_bus, monkeypatch):
    """What was handled when a follower ends is shown by it, though the copies had not been sent yet."""
    monkeypatch.setattr("pbus.bus.redis.tap._ANSWERS_S", PATIENCE_S)

    async def main():
        here, there, watching, far = make_bus(), make_bus(), make_bus(), Listener("far")
        await there.subscribe(far)
        async with running(here, there, watching):
            first = await until_direct(here, there, far)
            async with watching.tap() as tap:
                asked = asyncio.Event()
                link, note = here._copies._link, here._note_follower
                request = link.request

                async def request_when_asked(commands):
                    await asked.wait()
                    return await request(commands)

                monkeypatch.setattr(link, "request", request_when_asked)
                for number in range(first, first + 50):
                    await here.send(DirectNote(source="a", target="far", number=number))
                await far.heard(first + 50)
                monkeypatch.setattr(here, "_note_follower", lambda: (note(), asked.set()))
                await tap.catch_up()
                seen = [one.body for one in tap.waiting()]
                assert [
                    b'"number":%d' % one in seen[one - first] for one in range(first, first + 50)
                ] == [True] * 50
                assert 0 == tap.missed

    run(main())


@pytest.mark.parametrize("why", ["off here", "off there", "no socket", "no more", "other user"])
def test_broker_carries_what_sockets_do_not(make_bus, why, monkeypatch):
    """Where there is no socket the broker is the road, and no error is raised."""
    if why == "no socket":
        monkeypatch.setattr(direct_receiver, "listen", refuse)
    if why == "no more":
        monkeypatch.setattr(direct_routes, "MAX_OUTBOUND", 0)
    if why == "other user":
        monkeypatch.setattr(direct_receiver, "is_own_user", lambda _: False)

    async def main():
        here, there = make_bus(direct=why != "off here"), make_bus(direct=why != "off there")
        far = Listener("far")
        await there.subscribe(far)
        async with running(here, there):
            for number in range(50):
                await here.send(DirectNote(source="a", target="far", number=number))
                await far.heard(number + 1)
            assert list(range(50)) == numbers(far)
            assert here._direct is None or not links_of(here)

    run(main())


def refuse(name):
    """Listening is not allowed."""
    raise PermissionError(name)


def test_address_that_left_is_counted(make_bus):
    """Messages to a worker that left a process which goes on reach no process, and are counted so."""

    async def main():
        here, there, far, stays = make_bus(), make_bus(), Listener("far"), Listener("stays")
        await there.subscribe(far)
        await there.subscribe(stays)
        async with running(here, there):
            await until_direct(here, there, far)
            await there._router.remove(far).stop()  # its senders have not been told yet
            await there._ignore("far")
            for number in range(3):
                await here.send(DirectNote(source="a", target="far", number=number))
            await until(lambda: here.counters.unreached.get("far") == 3)

    run(main())


def test_receiver_that_ended_is_counted(make_bus):
    """After its receiver's end a sender reaches none, and its next process by socket again."""

    async def main():
        here, there, far = make_bus(), make_bus(), Listener("far")
        await there.subscribe(far)
        async with running(here):
            async with there:
                await until_direct(here, there, far)
            await until(lambda: not links_of(here))
            await here.send(DirectNote(source="a", target="far", number=0))
            await until(lambda: here.counters.unreached.get("far"))
            after, again = make_bus(), Listener("far")
            await after.subscribe(again)
            async with after:
                sent = 0
                while (after.incarnation, Lane.DATA) not in links_of(here):
                    await here.send(DirectNote(source="a", target="far", number=sent))
                    sent += 1
                    await again.heard(sent)

    run(main())


def test_idle_socket_is_closed(make_bus, monkeypatch):
    """A connection that is not used is closed, and made again when it is."""
    monkeypatch.setattr(direct_routes, "_IDLE_S", 0.0)
    monkeypatch.setattr(direct_routes, "_AGAIN_S", 0.0)

    async def main():
        here, there, far = make_bus(), make_bus(), Listener("far")
        await there.subscribe(far)
        async with running(here, there):
            sent = await until_direct(here, there, far)
            (link,) = links_of(here).values()
            await until(lambda: not link.unacked)
            here._direct.outbound.routes.tidy()
            assert {} == links_of(here)
            await until(lambda: not there._direct.inbound._links)
            await here.send(DirectNote(source="a", target="far", number=sent))
            await far.heard(sent + 1)
            assert 1 == len(links_of(here))
            assert list(range(sent + 1)) == numbers(far)

    run(main())


def test_far_behind_receiver_gets_the_rest_by_broker(make_bus, monkeypatch):
    """A sender keeps no more than a bound for a receiver that confirms nothing."""
    monkeypatch.setattr(direct_routes, "MAX_UNACKED_BYTES", 10_000)
    monkeypatch.setattr(inbound_link, "_ACK_FRAMES", 1 << 30)
    monkeypatch.setattr(inbound_link, "_ACK_BYTES", 1 << 30)
    monkeypatch.setattr(inbound_link, "_ACK_LATE_S", 60.0)

    async def main():
        here, there, far = make_bus(), make_bus(), Listener("far")
        await there.subscribe(far)
        async with running(here, there):
            sent = await until_direct(here, there, far)
            for number in range(sent, sent + 40):
                await here.send(DirectNote(source="a", target="far", number=number, text="x" * 999))
                await asyncio.sleep(0)
            await far.heard(sent + 40)
            assert list(range(sent + 40)) == numbers(far)
            assert {} == links_of(here)

    run(main())


def test_stranger_on_the_socket_is_refused(make_bus, channel):
    """What is not sealed with the key is counted and not delivered; a frame without end ends the socket."""

    async def main():
        there, far = make_bus(key=KEY), Listener("far")
        await there.subscribe(far)
        async with running(there):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(socket_name(channel, there.incarnation))
                forged = b'[1,"a-process",1,"d","far",1,1,0]\n{"type":"DirectNote","source":"a"}'
                hello = b"a-process"
                stranger.sendall(HEADER.pack(len(hello), 0, 0) + hello)
                stranger.sendall(HEADER.pack(len(forged), 0, 0) + forged)
                await until(lambda: there.counters.unsealed == 1)
                stranger.sendall(HEADER.pack(1 << 31, 0, 0))
                await until(lambda: not there._direct.inbound._links)
            assert [] == far.messages

    run(main())


def test_large_message_goes_through(make_bus):
    """A message larger than what the system keeps for a socket arrives whole, and so does what is around it."""

    async def main():
        here, there, far = make_bus(), make_bus(), Listener("far")
        await there.subscribe(far)
        async with running(here, there):
            sent = await until_direct(here, there, far)
            sizes = [900_000, 0, 3_000_000, 0, 900_000, 3_000_000, 0]
            for number, size in enumerate(sizes, sent):
                text = "0123456789" * (size // 10)
                await here.send(DirectNote(source="a", target="far", number=number, text=text))
            heard = await far.heard(sent + len(sizes))
            assert sizes == [len(one.text) for one in heard[sent:]]
            assert list(range(sent + len(sizes))) == numbers(far)
            assert 0 == there.counters.lost

    run(main())


def test_killed_process_is_followed_by_the_next(valkey, channel, make_bus, monkeypatch):
    """A receiver is killed in the middle; its successor gets all that is sent to it, by the socket."""
    monkeypatch.setattr(direct_routes, "_AGAIN_S", 0.0)  # the former one is looked for at once
    total = 300
    environ = (
        os.environ
        | BusSettings.from_keys({"url": valkey.url, "channel": channel, "direct": True}).to_env()
    )

    async def started():
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(slow_receiver.__file__)), valkey.url, channel, str(total), "0",
            stdout=asyncio.subprocess.PIPE, env=environ,
        )  # fmt: skip
        assert b"ready\n" == await process.stdout.readline()
        return process

    async def send_until_direct(bus):
        """Returns how many that took."""
        for number in range(total):
            await bus.send(Blob(source="a", target="sleepy", number=number))
            if any(link.is_welcome for link in links_of(bus).values()):
                return number + 1
            await asyncio.sleep(0.001)
        raise AssertionError("no socket is used")

    async def main():
        bus = make_bus()
        async with bus:
            first = await started()
            sent = await send_until_direct(bus)
            first.kill()
            for number in range(sent, sent + 20):
                await bus.send(Blob(source="a", target="sleepy", number=number))
            await first.wait()
            await until(lambda: not links_of(bus))
            second = await started()
            sent = await send_until_direct(bus)
            for number in range(sent, total):
                await bus.send(Blob(source="a", target="sleepy", number=number))
            async with asyncio.timeout(PATIENCE_S):
                verdict = await second.stdout.readline()
                await second.wait()
            assert f"got {total} lost 0 in_order True\n" == verdict.decode()

    run(main())


def test_broker_is_killed_and_comes_back(own_valkey, channel):
    """Messages pass by the socket without a broker; with the next one nothing is lost or late."""

    async def main():
        options = {"direct": True, "send_timeout": PATIENCE_S}
        here, there = (connect(own_valkey.url, channel=channel, **options) for _ in range(2))
        far = Listener("far")
        await there.subscribe(far)
        async with running(here, there):
            sent = await until_direct(here, there, far)
            own_valkey.kill()
            await until(lambda: not here.is_connected and not there.is_connected)
            for number in range(sent, sent + 50):
                await here.send(DirectNote(source="a", target="far", number=number))
            await far.heard(sent + 50)
            own_valkey.start()
            await until(lambda: here.is_connected and there.is_connected)
            here._direct.outbound.routes.cut()
            for number in range(sent + 50, sent + 100):
                await here.send(DirectNote(source="a", target="far", number=number))
            await far.heard(sent + 100)
            assert list(range(sent + 100)) == numbers(far)
            assert 0 == there.counters.lost

    run(main())
