"""Public usage of `pbus.testing`, type-checked and never run."""

from typing import Any, assert_type

from pbus import BaseWorker, BusDataMessage, BusJobRequestMessage
from pbus.testing import FakeClock, StandIn, WorkerHarness


class Note(BusDataMessage):
    """A message of the user's own."""

    text: str


class Writer(BaseWorker):
    """A worker of the user's own."""

    pages: int = 0


async def main() -> int:
    """A test's coroutine."""
    shelf = StandIn("shelf", {"find": {"hits": 3}, "lose": OSError("gone"), "count": _count})
    async with WorkerHarness(Writer("writer"), shelf, timeout=2.0) as harness:
        assert_type(harness, WorkerHarness[Writer])
        assert_type(await harness.job("write", {"title": "T"}), dict[str, Any])
        assert_type(await harness.sent(Note, where=lambda note: note.text == "x"), Note)
        assert_type(await shelf.asked("find"), BusJobRequestMessage)
        assert_type(await shelf.got(Note), Note)
        assert_type(await harness.add_worker("other"), StandIn)
        return harness.worker.pages


def _count(request: BusJobRequestMessage) -> int:
    return len(request.payload or {})


assert_type(FakeClock().run(main()), int)
