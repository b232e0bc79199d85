"""The sending side of a transport: coalescing, order and credit, without a broker."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import INITIAL_CREDIT_BYTES, SendStream
from pbus.bus.stream.write_queue import MAX_PAYLOAD_BYTES
from pbus.codec import decode_payload
from pbus.errors import BusFullError
from pbus.messages import Lane

KB = b"x" * 1023  # a kibibyte with its newline


def make(*, has_flow: bool = True, send_timeout: float = 5.0) -> SendBuffer:
    """A send buffer of the data lane."""
    return SendBuffer(Lane.DATA, "me", has_flow=has_flow, send_timeout=send_timeout)


def stream_of(buffer: SendBuffer, address: str) -> SendStream:
    """The stream to an address."""
    return buffer._streams[address]


def write(buffer: SendBuffer, receivers: int = 1) -> list[tuple[str, list[bytes]]]:
    """Take all that is ready as if it were written; (address, messages) a payload."""
    written = []
    for payload in buffer.queue.take_nowait():
        envelope, lines = decode_payload(buffer.encode(payload))
        written.append((envelope.address, lines))
        buffer.written(payload, receivers)
    return written


async def starts_to_wait(buffer: SendBuffer, address: str, line: bytes) -> asyncio.Task[None]:
    """A put that has to wait."""
    buffer.blocking.clear()
    task = asyncio.create_task(buffer.put(address, line))
    async with asyncio.timeout(5):
        await buffer.blocking.wait()
    return task


def test_messages_share_a_payload():
    """What gathers between two writes travels in one payload an address."""

    async def main():
        buffer = make()
        for line in (b"1", b"2"):
            await buffer.put("a", line)
            await buffer.put("b", line)

        assert [("a", [b"1", b"2"]), ("b", [b"1", b"2"])] == write(buffer)
        assert [] == write(buffer)

    asyncio.run(main())


@given(st.lists(st.sampled_from(["a", "b", "*"]), max_size=60), st.integers(1, 20))
def test_each_receiver_sees_its_order(addresses, write_every):
    """However sends and writes interleave, a receiver of `a` and `*` sees them in order."""

    async def main():
        buffer = make()
        written = []
        for number, address in enumerate(addresses):
            await buffer.put(address, str(number).encode())
            if number % write_every == 0:
                written += write(buffer)
        written += write(buffer)
        for name in ("a", "b"):
            expected = [n for n, address in enumerate(addresses) if address in {name, "*"}]
            seen = [
                int(line) for address, lines in written if address in {name, "*"} for line in lines
            ]

            assert expected == seen

    asyncio.run(main())


def test_payload_stays_below_its_limit():
    """A payload is closed before it outgrows its limit; a large message travels alone."""

    async def main():
        buffer = make(has_flow=False)
        await buffer.put("a", b"x" * (MAX_PAYLOAD_BYTES - 100))
        await buffer.put("a", b"y" * 200)
        await buffer.put("a", b"z" * (2 * MAX_PAYLOAD_BYTES))

        assert [1, 1, 1] == [len(lines) for _, lines in write(buffer) + write(buffer)]

    asyncio.run(main())


def test_numbers_and_positions_go_on():
    """Envelopes number messages and bytes through the whole stream."""

    async def main():
        buffer = make()
        await buffer.put("a", b"12345")
        await buffer.put("a", b"1")
        write(buffer)
        await buffer.put("a", b"1")
        (payload,) = buffer.queue.take_nowait()
        envelope, _ = decode_payload(buffer.encode(payload))

        assert (3, 1, 8) == (envelope.first, envelope.count, envelope.position)

    asyncio.run(main())


def test_sender_waits_for_credit():
    """Out of credit a sender waits; a grant lets it go on, in turn."""

    async def main():
        buffer = make()
        fits = INITIAL_CREDIT_BYTES // 1024
        for _ in range(fits):
            await buffer.put("a", KB)
        first = await starts_to_wait(buffer, "a", KB)
        second = await starts_to_wait(buffer, "a", b"last")
        write(buffer)
        await asyncio.sleep(0)
        assert not first.done()
        stream = stream_of(buffer, "a")
        buffer.grant("r", "a", stream.number, 0, stream.position + 1024)
        await asyncio.wait_for(first, 5)
        assert not second.done()
        buffer.grant("r", "a", stream.number, stream.position, stream.position + 1024)
        await asyncio.wait_for(second, 5)

        assert [b"last"] == write(buffer)[-1][1][-1:]

    asyncio.run(main())


def test_slowest_receiver_counts():
    """With several receivers the one with the least room holds the sender back."""

    async def main():
        buffer = make()
        await buffer.put("*", KB)
        write(buffer, receivers=2)
        stream = stream_of(buffer, "*")
        buffer.grant("quick", "*", stream.number, 1024, 10_000_000)
        buffer.grant("slow", "*", stream.number, 0, 2048)
        await buffer.put("*", KB)
        waiting = await starts_to_wait(buffer, "*", KB)
        buffer.forget(stream, "slow")
        buffer.set_receiver_count(stream, 1)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_unheard_receiver_is_asked():
    """A listener that has granted nothing is sent a mark, and holds the sender back till then."""

    async def main():
        buffer = make()
        await buffer.put("*", KB)
        write(buffer, receivers=1)
        stream = stream_of(buffer, "*")
        buffer.grant("old", "*", stream.number, 1024, 1_000_000)
        for _ in range(600):
            await buffer.put("*", KB)
        write(buffer)
        buffer.set_receiver_count(stream, 2)  # a new receiver
        assert [("*", [])] == write(buffer, receivers=2)[-1:]
        waiting = await starts_to_wait(buffer, "*", b"x" * 10_000)
        buffer.grant("new", "*", stream.number, stream.position, stream.position + 1_000_000)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_no_listener_never_blocks():
    """Messages without a receiver are written and gone; the sender goes on."""

    async def main():
        buffer = make(send_timeout=0.5)
        for _ in range(2000):
            await buffer.put("ghost", KB)
            write(buffer, receivers=0)

    asyncio.run(main())


def test_large_message_passes_an_idle_receiver():
    """A message larger than any credit goes when the receiver has nothing left to do."""

    async def main():
        buffer = make()
        await buffer.put("a", b"x" * 5_000_000)
        write(buffer)
        stream = stream_of(buffer, "a")
        waiting = await starts_to_wait(buffer, "a", b"y" * 5_000_000)
        buffer.set_receiver_count(stream, 1)  # an early question must not let it through
        await asyncio.sleep(0)
        assert not waiting.done()
        buffer.grant("r", "a", stream.number, 5_000_001, 6_000_000)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_full_buffer_names_the_broker():
    """With the broker away the buffer fills and the error says so."""

    async def main():
        buffer = make(has_flow=False, send_timeout=0.05)
        with pytest.raises(BusFullError, match="wait for the broker"):
            for _ in range(10_000):
                await buffer.put("a", KB)

    asyncio.run(main())


def test_cancelled_sender_leaves_the_line():
    """A sender cancelled while it waits sends nothing and blocks no other."""

    async def main():
        buffer = make()
        await buffer.put("a", KB)
        write(buffer)
        stream = stream_of(buffer, "a")
        buffer.grant("r", "a", stream.number, 0, 1024)
        first = await starts_to_wait(buffer, "a", b"cancelled")
        second = await starts_to_wait(buffer, "a", b"sent")
        first.cancel()
        buffer.grant("r", "a", stream.number, 1024, 1_000_000)
        await asyncio.wait_for(second, 5)

        assert [("a", [b"sent"])] == write(buffer)

    asyncio.run(main())


def test_stale_grant_is_ignored():
    """A grant for an earlier stream of the address changes nothing."""

    async def main():
        buffer = make()
        await buffer.put("a", KB)
        stream = stream_of(buffer, "a")
        buffer.grant("r", "a", stream.number + 1, 0, 10_000_000)

        assert 0 == stream.known

    asyncio.run(main())


def test_put_without_waiting():
    """What needs no waiting joins the open payload at once; what does is left to put()."""

    async def main():
        buffer = SendBuffer(Lane.DATA, "me", has_flow=True, send_timeout=0.01)
        assert not buffer.put_nowait("a", b"x")  # the stream begins with put()
        await buffer.put("a", b"1")
        assert buffer.put_nowait("a", b"2")
        await buffer.put("*", b"3")
        assert buffer.put_nowait("a", b"4")
        taken = buffer.queue.take_nowait()
        assert [[b"1", b"2"], [b"3"], [b"4"]] == [payload.lines for payload in taken]
        assert not buffer.put_nowait("a", b"y" * INITIAL_CREDIT_BYTES)  # no credit for it

    asyncio.run(main())


def test_busy_buffer_fills_payloads(monkeypatch):
    """While senders go on, what gathered during the last write grows; when they pause, it goes."""
    monkeypatch.setattr("pbus.bus.stream.write_queue.GATHER_S", 60.0)

    async def taken(*, has_flow):
        buffer = SendBuffer(Lane.DATA, "me", has_flow=has_flow, send_timeout=1.0)
        await buffer.put("a", b"0")

        async def send_on():
            for number in (b"1", b"2", b"3"):
                await buffer.put("a", number)
                await asyncio.sleep(0)

        sending = asyncio.create_task(send_on())
        (payload,) = await buffer.queue.next_batches()
        await sending
        return payload.lines

    assert [b"0", b"1", b"2", b"3"] == asyncio.run(taken(has_flow=True))
    assert b"0" == asyncio.run(taken(has_flow=False))[0]
