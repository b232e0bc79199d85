"""Both ends of a direct socket: frames in any pieces, confirmations, refusals, what is kept."""

import asyncio
import random
import socket

import pytest

from pbus.bus.direct import inbound_link
from pbus.bus.direct.direct_frames import ACK, HEADER, NO_BROADCASTS, REFUSED, Broadcasts
from pbus.bus.direct.inbound_link import Frame, InboundLink, Verdict
from pbus.bus.direct.outbound_link import OutboundLink
from pbus.bus.stream.send_stream import OutBatch, SendStream
from pbus.codec import Envelope
from pbus.messages import Lane
from support.waiting import run, until


class Sink:
    """Keeps what is taken; a payload is a number and text, or several with | between them."""

    max_bytes = 1_000_000

    def __init__(self):
        self.taken = []
        self.welcomed = []
        self.held = set()
        self.refused = set()
        self.overdue = []

    def welcome(self, link):
        """Note whose it is."""
        self.welcomed.append(link.sender)

    def open(self, link, payload, broadcasts):
        """Open a payload; one without text is none."""
        if payload == b"no payload":
            return None
        envelope = Envelope(1, link.sender, 1, Lane.DATA, "w", int(payload.split(b" ")[0]), 1, 0)
        return Frame(envelope, payload.split(b"|"), broadcasts)

    def take(self, frame, *, is_overdue):
        """Take it, hold it or refuse it, as the test says."""
        number = frame.envelope.first
        if number in self.refused:
            return Verdict.REFUSED
        if number in self.held and not is_overdue:
            return Verdict.HELD
        if is_overdue:
            self.overdue.append(number)
        self.taken.append((number, frame.broadcasts))
        return Verdict.TAKEN


def frame(payload, broadcasts=NO_BROADCASTS):
    """The bytes of a frame."""
    return HEADER.pack(len(payload), *broadcasts) + payload


def batch(payload):
    """A batch that was encoded."""
    made = OutBatch(SendStream("w", 1))
    made.lines = payload.split(b"|")
    made.encoded = payload
    return made


@pytest.fixture
def ends():
    """Two ends that do not block."""
    made = socket.socketpair()
    for end in made:
        end.setblocking(False)
    yield made
    for end in made:
        end.close()


async def counts(end, expected):
    """Confirmations, once the last one is as expected."""
    found = []

    def read():
        try:
            data = end.recv(4096)
        except BlockingIOError:
            return False
        found.extend(count for (count,) in ACK.iter_unpack(data))
        return found[-1:] == [expected]

    await until(read)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_frames_come_in_any_pieces(ends, seed):
    """However the bytes are cut, each frame is taken once, in order, with the broadcasts before it."""
    chance = random.Random(seed)
    payloads = [b"%d " % number + b"x" * chance.choice((0, 5, 9_000)) for number in range(150)]
    data = frame(b"sender") + b"".join(
        frame(payload, Broadcasts(3, number)) for number, payload in enumerate(payloads)
    )

    async def main():
        far, near = ends
        sink, ended = Sink(), []
        InboundLink(near, sink, ended.append)
        at = 0
        while at < len(data):
            size = chance.choice((1, 7, 25, 4_000, 60_000))
            try:
                at += far.send(data[at : at + size])
            except BlockingIOError:
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                await asyncio.sleep(0)
        await counts(far, len(payloads))
        far.close()
        await until(lambda: ended)
        assert ["sender"] == sink.welcomed
        assert [(number, (3, number)) for number in range(150)] == sink.taken

    run(main())


def test_held_frame_holds_those_behind_it(ends):
    """Nothing is read past a held frame; the retry takes it and the others."""

    async def main():
        far, near = ends
        sink = Sink()
        sink.held = {1, 2}
        link = InboundLink(near, sink, lambda _: None)
        far.send(frame(b"s") + b"".join(frame(b"%d x" % number) for number in range(5)))
        await until(lambda: sink.taken)
        link.retry()
        link.read()
        assert [0] == [number for number, _ in sink.taken]
        sink.held = {2}
        link.retry()
        assert [0, 1] == [number for number, _ in sink.taken]
        far.send(frame(b"5 x"))
        sink.held = set()
        link.retry()
        await until(lambda: len(sink.taken) == 6)
        assert list(range(6)) == [number for number, _ in sink.taken]
        link.close()
        assert 6 == (await counts(far, 6))[-1]

    run(main())


def test_held_frame_is_let_in_when_overdue(ends, monkeypatch):
    """What never comes is not waited for longer than a bound."""
    monkeypatch.setattr(inbound_link, "_HOLD_S", 0.0)

    async def main():
        far, near = ends
        sink = Sink()
        sink.held = {0}
        link = InboundLink(near, sink, lambda _: None)
        far.send(frame(b"s") + frame(b"0 x") + frame(b"1 x"))
        await until(lambda: len(sink.taken) == 2)
        assert [0] == sink.overdue
        link.close()

    run(main())


def test_refusal_follows_what_was_taken(ends):
    """The sender learns how many were taken before the one that was refused; then it is over."""

    async def main():
        far, near = ends
        sink, ended = Sink(), []
        sink.refused = {2}
        InboundLink(near, sink, ended.append)
        far.send(frame(b"s") + b"".join(frame(b"%d x" % number) for number in range(4)))
        assert [0, 2, REFUSED] == await counts(far, REFUSED)
        assert [0, 1] == [number for number, _ in sink.taken]
        assert ended

    run(main())


def test_what_was_no_payload_is_confirmed(ends):
    """It was counted where it was opened, and is not sent again."""

    async def main():
        far, near = ends
        link = InboundLink(near, Sink(), lambda _: None)
        far.send(frame(b"s") + frame(b"no payload") + frame(b"1 x"))
        assert 2 == (await counts(far, 2))[-1]
        link.close()

    run(main())


def test_longer_frame_ends_the_connection(ends):
    """No more is kept than a payload may have."""

    async def main():
        far, near = ends
        sink, ended = Sink(), []
        InboundLink(near, sink, ended.append)
        far.send(frame(b"s") + HEADER.pack(Sink.max_bytes + 1, 0, 0))
        await until(lambda: ended)
        assert [] == sink.taken

    run(main())


def test_sender_keeps_what_is_not_confirmed(ends):
    """Confirmed ones are dropped in order, the rest is there when the connection ends."""

    async def main():
        far, near = ends
        ended = []
        link = OutboundLink(near, "me", ended.append)
        for number in range(5):
            link.push(batch(b"%d x" % number), b"%d x" % number, NO_BROADCASTS)
        assert not link.is_welcome
        assert 15 == link.unacked_bytes
        far.send(ACK.pack(0) + ACK.pack(3)[:5])
        await until(lambda: link.is_welcome)
        assert 5 == len(link.unacked)
        far.send(ACK.pack(3)[5:])
        await until(lambda: len(link.unacked) == 2)
        far.close()
        await until(lambda: ended)
        assert [b"3 x", b"4 x"] == [one.encoded for one in link.unacked]
        assert not link.is_refused

    run(main())


def test_last_words_are_read_where_a_write_fails(ends):
    """A refusal is heard although the other end left something unread and is gone."""

    async def main():
        far, near = ends
        ended = []
        link = OutboundLink(near, "me", ended.append)
        for number in range(3):
            link.push(batch(b"%d x" % number), b"%d x" % number, NO_BROADCASTS)
        far.send(ACK.pack(0) + ACK.pack(1) + ACK.pack(REFUSED))
        far.close()
        link.push(batch(b"3 x"), b"3 x", NO_BROADCASTS)
        assert [link] == ended
        assert link.is_refused
        assert [b"1 x", b"2 x", b"3 x"] == [one.encoded for one in link.unacked]
        link.cut()
        assert [link] == ended

    run(main())


def test_both_ends_together(ends):
    """More than the system keeps goes through whole; the end is confirmed before the connection is over."""

    async def main():
        near, far = ends
        sink, ended = Sink(), []
        link = OutboundLink(near, "me", ended.append)
        payloads = [b"%d " % number + b"y" * 90_000 for number in range(40)]
        for payload in payloads:
            link.push(batch(payload), payload, NO_BROADCASTS)
        assert not link.is_flushed
        InboundLink(far, sink, lambda _: None)
        async with asyncio.timeout(20):
            await link.finish()
        assert list(range(40)) == [number for number, _ in sink.taken]
        assert ([link], 0) == (ended, len(link.unacked))

    run(main())


def test_several_messages_are_confirmed_at_once(ends, monkeypatch):
    """Their sender waits for that; a single message is confirmed with what follows, or late."""
    monkeypatch.setattr(inbound_link, "_ACK_LATE_S", 1e6)

    async def main():
        far, near = ends
        sink = Sink()
        link = InboundLink(near, sink, lambda _: None)
        far.send(frame(b"sender") + frame(b"0 x"))
        await until(lambda: len(sink.taken) == 1)
        assert [0] == await counts(far, 0)
        far.send(frame(b"1 x|x"))
        assert [2] == await counts(far, 2)
        far.send(frame(b"2 x") + frame(b"3 x|x") + frame(b"4 x"))
        assert [5] == await counts(far, 5)
        link.close()

    run(main())


def test_sender_waits_for_payloads_of_several_messages(ends):
    """Until the last of them is confirmed, not for single ones, nor where it gave up, nor at an end."""

    async def main():
        far, near = ends
        link = OutboundLink(near, "me", lambda _: None)

        def push(payload):
            link.push(batch(payload), payload, NO_BROADCASTS)

        async def waits():
            task = asyncio.create_task(link.until_taken())
            await asyncio.sleep(0)
            return None if task.done() else task

        push(b"0 x")
        assert await waits() is None
        for payload in (b"1 x|x", b"2 x|x", b"3 x"):
            push(payload)
        task = await waits()
        far.send(ACK.pack(2))
        await until(lambda: len(link.unacked) == 2)
        assert not task.done()
        far.send(ACK.pack(3))
        async with asyncio.timeout(20):
            await task
        assert 1 == len(link.unacked)
        assert await waits() is None

        push(b"4 x|x")
        task = await waits()
        task.cancel()
        link.expect_none()
        assert await waits() is None
        push(b"5 x|x")
        task = await waits()
        link.cut()
        async with asyncio.timeout(20):
            await task
        assert await waits() is None

    run(main())
