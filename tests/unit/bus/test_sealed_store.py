"""Messages without a seal among sealed ones, where the broker is away just then."""

from typing import Any

import pytest

from pbus.bus.claims import Claims
from pbus.bus.queues.sealed_store import SealedQueueStore, signed, unsigned
from pbus.bus.queues.store import Settlement, StoredMessage
from pbus.errors import BusUnavailableError, MessageDecodeError, SealError
from pbus.leases import Lease
from pbus.messages import Lane
from pbus.seal import KeySeal
from support.waiting import run

SEAL = KeySeal(["sixteen-characters-or-more"], "c")


class Store:
    """Hands out what it is given, and settles once it is there again."""

    def __init__(self, *bodies: bytes) -> None:
        self.messages = [
            StoredMessage("w", Lane.DATA, str(at), str(at), body) for at, body in enumerate(bodies)
        ]
        self.settled: list[Settlement] = []
        self.is_away = True

    async def fetch(self, wanted: Any, **_: Any) -> list[StoredMessage]:
        taken, self.messages = self.messages, []
        return taken

    async def settle(self, settles: list[Settlement]) -> None:
        if self.is_away:
            raise BusUnavailableError("redis://x", "away")
        self.settled += settles


async def no_leases() -> list[Lease]:
    """Of a channel without workers."""
    return []


def closed(line: bytes, address: bytes) -> bytes:
    """A stored message for an address."""
    return SEAL.close("stored", signed(line, "sender", is_holder=False), address)


@pytest.mark.parametrize("line", [b'{"a":"\\t"}', b"\x81\xa1a\xa3\t+x", b"", b"\t-x"])
@pytest.mark.parametrize("is_holder", [True, False])
def test_what_was_signed_comes_back(line: bytes, is_holder: bool):
    """Whatever the message holds."""
    assert (line, "0a1b", is_holder) == unsigned(signed(line, "0a1b", is_holder=is_holder))


@pytest.mark.parametrize("data", [b"", b"{}", b"{}\t", b"{}\t*0a1b", b"{}\t+0a\t1b"])
def test_unsigned_is_refused(data: bytes):
    """A sealed message that does not say who sent it is none of pbus'."""
    with pytest.raises(SealError, match="which process"):
        unsigned(data)


def test_good_neighbours_are_not_lost():
    """The others are handed out at once; the strange one becomes a dead letter with a later take."""

    async def main() -> None:
        inner = Store(closed(b"{1}", b"w"), b"{forged}", closed(b"{2}", b"*"))
        refused: list[MessageDecodeError] = []
        store = SealedQueueStore(inner, SEAL, (), Claims((), no_leases), refused.append)

        taken = await store.fetch([("w", Lane.DATA, 10)], consumer="h", wait_s=0)
        assert [b"{1}", b"{2}"] == [message.body for message in taken]
        assert [] == inner.settled

        inner.is_away = False
        assert [] == await store.fetch([("w", Lane.DATA, 10)], consumer="h", wait_s=0)
        assert [("1", "dead_letter")] == [
            (one.message.receipt_handle, one.how) for one in inner.settled
        ]
        await store.fetch([("w", Lane.DATA, 10)], consumer="h", wait_s=0)
        assert 1 == len(inner.settled) == len(refused)

    run(main())
