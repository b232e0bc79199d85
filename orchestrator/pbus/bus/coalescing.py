"""Coalescing: messages that are written together keep the order that each receiver sees."""

from typing import Generic, TypeVar

EVERYONE = "*"  # the address of broadcasts

Batch = TypeVar("Batch")


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
        if address == EVERYONE:
            self._batches.clear()
        else:
            self._batches.pop(EVERYONE, None)
        self._batches[address] = batch

    def close(self, address: str) -> None:
        """Let no message to an address join what was opened for it."""
        self._batches.pop(address, None)

    def clear(self) -> None:
        """Close all."""
        self._batches.clear()
