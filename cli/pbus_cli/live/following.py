"""Following what passes in a project: a line each, until so many, a time, or Ctrl-C."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from pbus.client import Client
from pbus_cli.live.printer import LinePrinter, feed, stream_writer
from pbus_cli.terminal import console

T = TypeVar("T")


class Following(Generic[T]):
    """Prints what a client follows.

    Args:
        text: From one of them to its line.
        count: The number after which it ends; None for no limit.
        duration_s: Seconds after which it ends; None for no limit.
        may_drop: Lines that come faster than they are printed are left out, unless they are counted.
        on_end: Called with the number of lines that were left out.
        rest: What is printed when it has ended, within the limit.
    """

    def __init__(
        self,
        text: Callable[[T], str],
        count: int | None,
        duration_s: float | None,
        *,
        may_drop: bool = False,
        on_end: Callable[[int], None] = lambda _dropped: None,
        rest: Callable[[], Iterable[T]] = tuple,
    ) -> None:
        self._text = text
        self._count = count
        self._duration_s = duration_s
        self._waits = not may_drop or count is not None
        self._on_end = on_end
        self._rest = rest
        self._printer = LinePrinter(stream_writer(sys.stdout), says_dropped=not may_drop)

    async def run(
        self, client: Client, followed: AbstractAsyncContextManager[AsyncIterable[T]]
    ) -> None:
        """Print until it ends."""
        async with followed as passing:
            if sys.stderr.isatty():
                console.note(f"following {client.project} (Ctrl-C ends it)")
            try:
                await feed(self._printer, self._print(passing))
            finally:
                self._on_end(self._printer.dropped)

    async def _print(self, passing: AsyncIterable[T]) -> None:
        try:
            left = await self._print_all(passing)
        except asyncio.CancelledError:
            for one in self._rest():
                self._printer.put(self._text(one))
            raise
        for one in itertools.islice(self._rest(), left):
            await self._printer.put_all(self._text(one))

    async def _print_all(self, passing: AsyncIterable[T]) -> int | None:
        """Print what passes. Returns the number of lines that may follow; None for no limit."""
        printed = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._duration_s):
                async for one in passing:
                    if not self._waits:
                        self._printer.put(self._text(one))
                        continue
                    await self._printer.put_all(self._text(one))
                    printed += 1
                    if printed == self._count:
                        return 0
        return None if self._count is None else self._count - printed
