"""The sending side of a transport: coalescing, order and credit, without a broker."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.bus.stream.send_buffer import (
    INITIAL_CREDIT_BYTES,
    MAX_PAYLOAD_BYTES,
    SendBuffer,
    SendStream,
)
from pbus.codec import decode_payload
from pbus.errors import BusFullError
from pbus.messages import Lane

KB = b"x" * 1023  # a kibibyte with its newline


def make(*, has_flow: bool = True, send_timeout: float = 5.0) -> SendBuffer:
    """An outbox of the data lane."""
    return SendBuffer(Lane.DATA, "me", has_flow=has_flow, send_timeout=send_timeout)


def stream_of(outbox: SendBuffer, address: str) -> SendStream:
    """The stream to an address."""
    return outbox._streams[address]


def write(outbox: SendBuffer, receivers: int = 1) -> list[tuple[str, list[bytes]]]:
    """Take all that is ready as if it were written; (address, messages) a payload."""
    written = []
    for payload in outbox.take_nowait():
        envelope, lines = decode_payload(outbox.encode(payload))
        written.append((envelope.address, lines))
        outbox.written(payload, receivers)
    return written


async def starts_to_wait(outbox: SendBuffer, address: str, line: bytes) -> asyncio.Task[None]:
    """A put that has to wait."""
    outbox.blocking.clear()
    task = asyncio.create_task(outbox.put(address, line))
    async with asyncio.timeout(5):
        await outbox.blocking.wait()
    return task


def test_messages_share_a_payload():
    """What gathers between two writes travels in one payload an address."""

    async def main():
        outbox = make()
        for line in (b"1", b"2"):
            await outbox.put("a", line)
            await outbox.put("b", line)

        assert [("a", [b"1", b"2"]), ("b", [b"1", b"2"])] == write(outbox)
        assert [] == write(outbox)

    asyncio.run(main())


@given(st.lists(st.sampled_from(["a", "b", "*"]), max_size=60), st.integers(1, 20))
def test_each_receiver_sees_its_order(addresses, write_every):
    """However sends and writes interleave, a receiver of `a` and `*` sees them in order."""

    async def main():
        outbox = make()
        written = []
        for number, address in enumerate(addresses):
            await outbox.put(address, str(number).encode())
            if number % write_every == 0:
                written += write(outbox)
        written += write(outbox)
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
        outbox = make(has_flow=False)
        await outbox.put("a", b"x" * (MAX_PAYLOAD_BYTES - 100))
        await outbox.put("a", b"y" * 200)
        await outbox.put("a", b"z" * (2 * MAX_PAYLOAD_BYTES))

        assert [1, 1, 1] == [len(lines) for _, lines in write(outbox) + write(outbox)]

    asyncio.run(main())


def test_numbers_and_positions_go_on():
    """Envelopes number messages and bytes through the whole stream."""

    async def main():
        outbox = make()
        await outbox.put("a", b"12345")
        await outbox.put("a", b"1")
        write(outbox)
        await outbox.put("a", b"1")
        (payload,) = outbox.take_nowait()
        envelope, _ = decode_payload(outbox.encode(payload))

        assert (3, 1, 8) == (envelope.first, envelope.count, envelope.position)

    asyncio.run(main())


def test_sender_waits_for_credit():
    """Out of credit a sender waits; a grant lets it go on, in turn."""

    async def main():
        outbox = make()
        fits = INITIAL_CREDIT_BYTES // 1024
        for _ in range(fits):
            await outbox.put("a", KB)
        first = await starts_to_wait(outbox, "a", KB)
        second = await starts_to_wait(outbox, "a", b"last")
        write(outbox)
        await asyncio.sleep(0)
        assert not first.done()
        stream = stream_of(outbox, "a")
        outbox.grant("r", "a", stream.number, 0, stream.position + 1024)
        await asyncio.wait_for(first, 5)
        assert not second.done()
        outbox.grant("r", "a", stream.number, stream.position, stream.position + 1024)
        await asyncio.wait_for(second, 5)

        assert [b"last"] == write(outbox)[-1][1][-1:]

    asyncio.run(main())


def test_slowest_receiver_counts():
    """With several receivers the one with the least room holds the sender back."""

    async def main():
        outbox = make()
        await outbox.put("*", KB)
        write(outbox, receivers=2)
        stream = stream_of(outbox, "*")
        outbox.grant("quick", "*", stream.number, 1024, 10_000_000)
        outbox.grant("slow", "*", stream.number, 0, 2048)
        await outbox.put("*", KB)
        waiting = await starts_to_wait(outbox, "*", KB)
        outbox.forget(stream, "slow")
        outbox.set_receiver_count(stream, 1)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_unheard_receiver_is_asked():
    """A listener that has granted nothing is sent a mark, and holds the sender back till then."""

    async def main():
        outbox = make()
        await outbox.put("*", KB)
        write(outbox, receivers=1)
        stream = stream_of(outbox, "*")
        outbox.grant("old", "*", stream.number, 1024, 1_000_000)
        for _ in range(600):
            await outbox.put("*", KB)
        write(outbox)
        outbox.set_receiver_count(stream, 2)  # somebody new
        assert [("*", [])] == write(outbox, receivers=2)[-1:]
        waiting = await starts_to_wait(outbox, "*", b"x" * 10_000)
        outbox.grant("new", "*", stream.number, stream.position, stream.position + 1_000_000)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_nobody_listening_never_blocks():
    """Messages to nobody are written and gone; the sender goes on."""

    async def main():
        outbox = make(send_timeout=0.5)
        for _ in range(2000):
            await outbox.put("ghost", KB)
            write(outbox, receivers=0)

    asyncio.run(main())


def test_large_message_passes_an_idle_receiver():
    """A message larger than any credit goes when the receiver has nothing left to do."""

    async def main():
        outbox = make()
        await outbox.put("a", b"x" * 5_000_000)
        write(outbox)
        stream = stream_of(outbox, "a")
        waiting = await starts_to_wait(outbox, "a", b"y" * 5_000_000)
        outbox.set_receiver_count(stream, 1)  # an early question must not let it through
        await asyncio.sleep(0)
        assert not waiting.done()
        outbox.grant("r", "a", stream.number, 5_000_001, 6_000_000)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_full_buffer_names_the_broker():
    """With the broker away the buffer fills and the error says so."""

    async def main():
        outbox = make(has_flow=False, send_timeout=0.05)
        with pytest.raises(BusFullError, match="wait for the broker"):
            for _ in range(10_000):
                await outbox.put("a", KB)

    asyncio.run(main())


def test_cancelled_sender_leaves_the_line():
    """A sender cancelled while it waits sends nothing and holds nobody up."""

    async def main():
        outbox = make()
        await outbox.put("a", KB)
        write(outbox)
        stream = stream_of(outbox, "a")
        outbox.grant("r", "a", stream.number, 0, 1024)
        first = await starts_to_wait(outbox, "a", b"cancelled")
        second = await starts_to_wait(outbox, "a", b"sent")
        first.cancel()
        outbox.grant("r", "a", stream.number, 1024, 1_000_000)
        await asyncio.wait_for(second, 5)

        assert [("a", [b"sent"])] == write(outbox)

    asyncio.run(main())


def test_stale_grant_is_ignored():
    """A grant for an earlier stream of the address changes nothing."""

    async def main():
        outbox = make()
        await outbox.put("a", KB)
        stream = stream_of(outbox, "a")
        outbox.grant("r", "a", stream.number + 1, 0, 10_000_000)

        assert 0 == stream.known

    asyncio.run(main())


def test_put_without_waiting():
    """What needs no waiting joins the open payload at once; what does is left to put()."""

    async def main():
        outbox = SendBuffer(Lane.DATA, "me", has_flow=True, send_timeout=0.01)
        assert not outbox.put_nowait("a", b"x")  # the stream begins with put()
        await outbox.put("a", b"1")
        assert outbox.put_nowait("a", b"2")
        await outbox.put("*", b"3")
        assert outbox.put_nowait("a", b"4")
        taken = outbox.take_nowait()
        assert [[b"1", b"2"], [b"3"], [b"4"]] == [payload.lines for payload in taken]
        assert not outbox.put_nowait("a", b"y" * INITIAL_CREDIT_BYTES)  # no credit for it

    asyncio.run(main())


def test_busy_outbox_fills_payloads(monkeypatch):
    """While senders go on, what gathered during the last write grows; when they pause, it goes."""
    monkeypatch.setattr("pbus.bus.stream.send_buffer.GATHER_S", 60.0)

    async def taken(*, has_flow):
        outbox = SendBuffer(Lane.DATA, "me", has_flow=has_flow, send_timeout=1.0)
        await outbox.put("a", b"0")

        async def send_on():
            for number in (b"1", b"2", b"3"):
                await outbox.put("a", number)
                await asyncio.sleep(0)

        sending = asyncio.create_task(send_on())
        (payload,) = await outbox.next_batches()
        await sending
        return payload.lines

    assert [b"0", b"1", b"2", b"3"] == asyncio.run(taken(has_flow=True))
    assert b"0" == asyncio.run(taken(has_flow=False))[0]
