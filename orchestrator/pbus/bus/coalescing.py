"""Coalescing: messages that are written together keep the order that each receiver sees."""

from typing import Generic, TypeVar

EVERYONE = "*"  # the address of broadcasts
NEWS = "*news"  # of those about workers, which most processes have no use for
BROADCASTS = frozenset({EVERYONE, NEWS})

Batch = TypeVar("Batch")


def shown_address(address: str) -> str:
    """The address as users know it: news of workers are for everyone."""
    return EVERYONE if address == NEWS else address


class OpenBatches(Generic[Batch]):
    """Batches that later messages to the same address may join.

    A broadcast closes targeted batches, and they close it: what a process is sent keeps its order.
    """

    __slots__ = ("_batches", "get")

    def __init__(self) -> None:
        self._batches: dict[str, Batch] = {}
        self.get = self._batches.get

    def open(self, address: str, batch: Batch) -> None:
        """Have later messages to an address join a batch."""
        if address in BROADCASTS:
            self._batches.clear()
        else:
            for broadcasts in BROADCASTS:
                self._batches.pop(broadcasts, None)
        self._batches[address] = batch

    def close(self, address: str) -> None:
        """Let no message to an address join what was opened for it."""
        self._batches.pop(address, None)

    def clear(self) -> None:
        """Close all."""
        self._batches.clear()
