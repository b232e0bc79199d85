"""Messages without a seal among sealed ones, where the broker is away just then."""

from typing import Any

from pbus.bus.queues.sealed_store import sealed
from pbus.bus.queues.store import Settlement, StoredMessage
from pbus.errors import BusUnavailableError
from pbus.messages import Lane
from pbus.seal import KeySeal
from support.waiting import run

SEAL = KeySeal(["sixteen-letters-or-more"], "c")


class Store:
    """Hands out what it is given, and settles once it is there again."""

    def __init__(self, *bodies: bytes) -> None:
        self.letters = [
            StoredMessage("w", Lane.DATA, str(at), str(at), body) for at, body in enumerate(bodies)
        ]
        self.settled: list[Settlement] = []
        self.is_away = True

    async def take(self, wanted: Any, **_: Any) -> list[StoredMessage]:
        taken, self.letters = self.letters, []
        return taken

    async def settle(self, settles: list[Settlement]) -> None:
        if self.is_away:
            raise BusUnavailableError("redis://x", "away")
        self.settled += settles


def test_good_neighbours_are_not_lost():
    """The others are handed out at once; the strange one becomes a dead letter with a later take."""

    async def main() -> None:
        inner = Store(
            SEAL.close("stored", b"{1}", b"w"), b"{forged}", SEAL.close("stored", b"{2}", b"*")
        )
        store = sealed(inner, SEAL)

        taken = await store.take([("w", Lane.DATA, 10)], holder="h", wait_s=0)
        assert [b"{1}", b"{2}"] == [letter.body for letter in taken]
        assert [] == inner.settled

        inner.is_away = False
        assert [] == await store.take([("w", Lane.DATA, 10)], holder="h", wait_s=0)
        assert [("1", "bury")] == [(one.letter.key, one.how) for one in inner.settled]
        await store.take([("w", Lane.DATA, 10)], holder="h", wait_s=0)
        assert 1 == len(inner.settled)

    run(main())
