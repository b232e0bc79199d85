"""The receiving side of a transport: gaps, repeats and credit, without a broker."""

import pytest

from pbus.bus.coalescing import EVERYONE, NEWS
from pbus.bus.stream.receiver import (
    BROADCAST_CREDIT_BYTES,
    MAX_SHARE_BYTES,
    MAX_URGENT_BYTES,
    StreamReceiver,
)
from pbus.codec import FORMAT_VERSION, Envelope, encode_payload
from pbus.errors import MessageDecodeError
from pbus.messages import Lane


class FakeSink:
    """Remembers what the receiver says."""

    def __init__(self) -> None:
        self.delivered: list[bytes] = []
        self.losses: list[tuple[str, str, int]] = []
        self.grants: list[tuple[str, str, int, int, int]] = []
        self.receipts = []

    def deliver(self, sender, address, lane, lines, receipt):
        del sender
        self.delivered += lines
        self.receipts.append(receipt)
        return len(lines)

    def lost(self, sender, address, count):
        self.losses.append((sender, address, count))

    def grant(self, sender, address, number, consumed, limit):
        self.grants.append((sender, address, number, consumed, limit))


def payload(
    first: int,
    *lines: bytes,
    position: int = 0,
    stream: int = 1,
    lane: str = "d",
    address: str = "w",
) -> bytes:
    """A payload of sender s."""
    envelope = Envelope(FORMAT_VERSION, "s", stream, lane, address, first, len(lines), position)
    return encode_payload(envelope, list(lines))


@pytest.fixture
def sink() -> FakeSink:
    """What the receiver speaks to."""
    return FakeSink()


@pytest.fixture
def receive(sink):
    """Gives payloads to one receiver."""
    receiver = StreamReceiver(sink)

    def give(*payloads: bytes) -> StreamReceiver:
        for each in payloads:
            receiver.receive(each, limit=10_000_000)
        return receiver

    return give


def test_gap_is_counted(sink, receive):
    """Missing numbers between two payloads are reported once."""
    receive(payload(1, b"1", b"2"), payload(6, b"6"), payload(7, b"7"))

    assert [("s", "w", 3)] == sink.losses


def test_first_payload_sets_the_baseline(sink, receive):
    """Who joins a running stream has lost nothing."""
    receive(payload(100, b"x"))

    assert [] == sink.losses


def test_repeat_is_dropped(sink, receive):
    """What is written again after a reconnection is handled once, also when only partly seen."""
    receive(payload(1, b"1", b"2"), payload(1, b"1", b"2"), payload(2, b"2", b"3"))

    assert [b"1", b"2", b"3"] == sink.delivered


def test_mark_shows_a_lost_end(sink, receive):
    """A mark that is ahead of what came reports the difference."""
    receive(payload(1, b"1"), payload(4))

    assert [("s", "w", 2)] == sink.losses


def test_new_stream_counts_from_one(sink, receive):
    """A sender's new stream to us begins at 1, and what is missing of it shows."""
    receive(payload(9, b"9"), payload(3, b"3", stream=2), payload(10, b"late", stream=1))

    assert [("s", "w", 2)] == sink.losses
    assert [b"9", b"3"] == sink.delivered


def test_first_payload_is_granted(sink, receive):
    """The first payload makes us known to its sender."""
    receive(payload(1, b"12345"))

    assert [("s", "w", 1, 0, MAX_SHARE_BYTES)] == sink.grants


@pytest.mark.parametrize("address", [EVERYONE, NEWS])
def test_few_broadcasts_are_not_granted(sink, receive, address):
    """Each of many processes would grant each sender of a short broadcast; a gap and a long one are granted."""
    size = BROADCAST_CREDIT_BYTES - 3
    receive(payload(1, b"1", address=address), payload(2, position=2, address=address))
    assert [] == sink.grants
    receive(payload(2, b"x" * (size - 1), position=2, address=address))
    assert [] == sink.grants
    receive(payload(3, position=2 + size, address=address))
    assert [] == sink.grants
    receive(payload(3, b"", position=2 + size, address=address))
    (first,) = sink.grants
    assert ("s", address, 1) == first[:3]
    receive(payload(4, b"", position=3 + size, address=address))
    assert 1 == len(sink.grants)


def test_gap_in_broadcasts_is_granted(sink, receive):
    """The sender need not wait for what was lost."""
    receive(payload(1, b"1", address=EVERYONE), payload(5, b"5", position=99, address=EVERYONE))

    assert [("s", EVERYONE, 3)] == sink.losses
    assert 1 == len(sink.grants)


def test_mark_makes_us_known(sink, receive):
    """A mark is enough to be known, with everything before it handled."""
    receive(payload(7, position=500))

    assert [("s", "w", 1, 500, 500 + MAX_SHARE_BYTES)] == sink.grants


def test_handled_quarter_is_granted(sink, receive):
    """Credit is renewed after a quarter of the share, when the last message of a payload is done."""
    big = b"x" * (MAX_SHARE_BYTES // 8)
    receive(payload(1, big, big))
    receipt = sink.receipts[0]
    receipt.done()
    assert 1 == len(sink.grants)
    receipt.done()
    size = 2 * (len(big) + 1)

    assert ("s", "w", 1, size, size + MAX_SHARE_BYTES) == sink.grants[-1]


def test_probe_is_answered(sink, receive):
    """A waiting sender is told where we are, now and again when anything is handled."""
    receiver = receive(payload(1, b"1"), payload(2, b"2", position=2))
    assert receiver.probe("s", "w", 1)
    assert ("s", "w", 1, 0, MAX_SHARE_BYTES) == sink.grants[-1]
    sink.receipts[0].done()

    assert ("s", "w", 1, 2, 2 + MAX_SHARE_BYTES) == sink.grants[-1]
    assert not receiver.probe("stranger", "w", 1)


def test_leaving_frees_senders(sink, receive):
    """When we stop listening at an address, its senders are told not to wait for us."""
    receive(payload(1, b"1")).leave("w")

    assert ("s", "w", 1, 0, -1) == sink.grants[-1]


def test_system_lane_needs_no_credit(sink, receive):
    """The system lane is neither granted nor held back, and its gaps are counted all the same."""
    receive(payload(1, b"1", lane="s"), payload(3, b"3", lane="s"))

    assert ([], [("s", "w", 1)], 2) == (sink.grants, sink.losses, len(sink.receipts))


def test_urgent_messages_are_bounded(sink, receive):
    """While a handler of theirs hangs: what has no room is lost, and said; others come in again later."""
    big = b"x" * 4_000_000
    receiver = receive(*(payload(number, big, lane="s") for number in range(1, 101)))
    held = len(sink.delivered)
    assert held * len(big) <= MAX_URGENT_BYTES < (held + 1) * len(big) + held
    assert 100 - held == sum(count for _, _, count in sink.losses)
    assert {("s, for which there is no room,", "w")} == {loss[:2] for loss in sink.losses}

    for receipt in sink.receipts:
        receipt.done()
    assert 0 == receiver.urgent_bytes
    receive(payload(101, big, lane="s"))
    assert held + 1 == len(sink.delivered)


def test_an_urgent_message_larger_than_the_bound_is_taken_alone(sink, receive, monkeypatch):
    """The limit of messages may be higher; one is in hand at a time then."""
    monkeypatch.setattr("pbus.bus.stream.receiver.MAX_URGENT_BYTES", 10)
    receive(payload(1, b"x" * 100, lane="s"), payload(2, b"y" * 100, lane="s"))
    assert [b"x" * 100] == sink.delivered
    sink.receipts.pop().done()
    receive(payload(3, b"z" * 100, lane="s"))

    assert [b"x" * 100, b"z" * 100] == sink.delivered


def test_urgent_messages_for_no_subscriber_hold_nothing(sink, receive):
    """What is dropped at once has no bytes here."""
    sink.deliver = lambda *_: 0
    receiver = receive(payload(1, b"1", lane="s"), payload(2, b"2", lane="s"))

    assert (0, []) == (receiver.urgent_bytes, sink.losses)


def test_oversized_payload_is_refused(sink):
    """A payload over the limit is refused before it is looked at."""
    with pytest.raises(MessageDecodeError, match="over max_message_bytes"):
        StreamReceiver(sink).receive(payload(1, b"x" * 100), limit=50)


def test_unknown_lane_is_refused(receive):
    """A lane that does not exist is refused."""
    with pytest.raises(MessageDecodeError):
        receive(payload(1, b"1", lane="z"))


def test_lanes_are_the_two():
    """There are two lanes, and their wire names stay."""
    assert ["d", "s"] == [lane.value for lane in Lane]


def test_invented_senders_are_bounded(sink, receive, caplog):
    """Streams of ever new senders push the silent ones out, and that is said; new ones are heard."""
    receiver = receive(payload(1, b"a"))
    for number in range(25_000):
        envelope = Envelope(FORMAT_VERSION, f"s{number}", 1, "d", "w", 1, 1, 0)
        receiver.receive(encode_payload(envelope, [b"x"]), limit=1_000)
        sink.receipts.pop().done()

    assert 25_001 == len(sink.delivered)
    assert len(receiver._streams) <= 10_000
    assert "over 10000 senders wrote to this process" in caplog.text


def test_senders_with_work_here_are_not_forgotten(sink, receive):
    """Where every stream has messages in hand, those of further senders are refused."""
    receiver = receive()
    for number in range(10_000):
        envelope = Envelope(FORMAT_VERSION, f"s{number}", 1, "d", "w", 1, 1, 0)
        receiver.receive(encode_payload(envelope, [b"x"]), limit=1_000)

    with pytest.raises(MessageDecodeError, match=r"10,000 senders .* those of 's' to 'w'"):
        receiver.receive(payload(1, b"a"), limit=1_000)


@pytest.mark.parametrize(
    "head",
    [
        b'[1,"x",1,"d","w",9000000000000000000,1,0]',
        b'[1,"x",1,"d","w",-1,1,0]',
        b'[1,"x",1,"d","w",1,1,-5]',
        b'[1,"x",99999999999999999999999,"d","w",1,1,0]',
        b'[1,"\xff",1,"d","w",1,1,0]',
        b'[1,"x",1,"q","w",1,1,0]',
    ],
)
def test_impossible_envelopes_are_refused(sink, receive, head: bytes):
    """Numbers that no sender reaches are no envelope: nothing is counted as lost."""
    with pytest.raises(MessageDecodeError):
        receive(head + b"\n{}")

    assert [] == sink.losses
