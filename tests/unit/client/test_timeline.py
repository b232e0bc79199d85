"""Messages, log lines and state changes in the order of their times."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.message_tail import TailMessage
from pbus.client.traffic.tails import timeline as module
from pbus.client.traffic.tails.timeline import Entry, Timeline
from pbus.messages import BusWorkerStateMessage
from pbus.process.project.log_files import LogLine

PAST = 1000.0


def message(at: float, size: int = 0) -> TailMessage:
    """A message of that time."""
    return TailMessage(
        time=PAST + at, id=str(at), type="T", category="data", source="a", target="b",
        size_bytes=size, is_urgent=False, body=b"x" * size,
    )  # fmt: skip


def line(at: float, worker: str = "a", text: str = "hello") -> LogLine:
    """A log line of that time."""
    return LogLine(worker, PAST + at, "out", text)


def change(at: float, worker: str = "a", detail: str = "") -> BusWorkerStateMessage:
    """A state change of that time."""
    return BusWorkerStateMessage(
        source="s", time=PAST + at, project="p", worker=worker, state="ready", detail=detail
    )


class Origin:
    """Gives entries, then waits or ends."""

    missed, passed = 2, 9

    def __init__(self, *entries: Entry, ends: bool = False, error: Exception | None = None) -> None:
        self.entries = list(entries)
        self.given = 0
        self.is_closed = False
        self._ends = ends
        self._error = error

    async def __aenter__(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Any]:
        for entry in self.entries:
            yield entry
            self.given += 1
        if self._error is not None:
            raise self._error
        if not self._ends:
            await asyncio.Event().wait()

    async def close(self) -> None:
        """Give no more."""
        self.is_closed = True


def told(
    messages: Origin,
    changes: Origin | None = None,
    lines: Origin | None = None,
    chosen: Filter | None = None,
    *,
    read: Callable[[Timeline], Awaitable[list[Entry]]] | None = None,
) -> list[float]:
    """The times of what a timeline gives, from PAST on."""

    async def main() -> list[Entry]:
        timeline = Timeline(messages, changes, lines, chosen or Filter())  # type: ignore[arg-type]
        async with timeline:
            return await (read or everything)(timeline)

    return [entry.time - PAST for entry in asyncio.run(main())]


async def everything(timeline: Timeline) -> list[Entry]:
    """What is given until the timeline ends."""
    return [entry async for entry in timeline]


def test_one_order_of_all_kinds() -> None:
    """Whatever comes first: what is older goes first, while it is held."""
    messages = Origin(message(1), message(5), message(9), ends=True)
    changes = Origin(change(4), change(8))
    lines = Origin(line(2), line(3), line(7))

    assert [1, 2, 3, 4, 5, 7, 8, 9] == told(messages, changes, lines)
    assert messages.is_closed
    assert changes.is_closed


def test_what_is_held_comes_in_time() -> None:
    """An entry is given half a second after it came, while the others go on without an end."""

    async def first_two(timeline: Timeline) -> list[Entry]:
        began = asyncio.get_running_loop().time()
        entries = [await anext(timeline), await anext(timeline)]
        assert asyncio.get_running_loop().time() - began >= module.HOLD_S * 0.9
        return entries

    assert [1, 2] == told(Origin(message(2)), None, Origin(line(1)), read=first_two)


def test_rest_is_given_at_the_end() -> None:
    """What is held when following ends is not lost, and given once."""

    async def end_early(timeline: Timeline) -> list[Entry]:
        while timeline._held._heap[3:] == []:
            await asyncio.sleep(0)
        return [*timeline.rest(), *timeline.rest()]

    assert [1, 2, 3, 4] == told(
        Origin(message(4), message(2)), Origin(change(3)), Origin(line(1)), read=end_early
    )


def test_a_clock_ahead_does_not_hold_an_entry_back() -> None:
    """Its time counts for the order only as far as it can be true: it came before the second."""
    second = time.time() + 3600 - PAST
    entries = message(1e12), message(1), message(second)

    assert [1, 1e12, second] == told(Origin(*entries, ends=True))


def test_an_error_of_an_origin_is_raised() -> None:
    """After what came before it."""
    with pytest.raises(OSError, match="no disk"):
        told(Origin(message(1)), None, Origin(line(2), error=OSError("no disk")))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filter(), [1, 2, 3, 4, 5]),
        (Filter(sources=("a",)), [1, 2, 4]),
        (Filter(targets=("b",), sources=("x*",)), [1, 3, 5]),
        (Filter(targets=("c",)), [1]),
        (Filter(pattern=re.compile(b"bo[o]m")), [1, 3, 5]),
    ],
)
def test_names_and_patterns_choose_lines_and_changes(chosen: Filter, expected: list[float]) -> None:
    """Replicas by their group, too; messages were chosen before."""
    messages = Origin(message(1), ends=True)
    changes = Origin(change(2), change(3, "b.2", "boom"))
    lines = Origin(line(4, "a.1"), line(5, "b", "a boom"))

    assert expected == told(messages, changes, lines, chosen)


@pytest.mark.parametrize(("count", "size"), [(40, 0), (8, 1000)])
def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch, count: int, size: int) -> None:
    """In number and bytes: an origin waits while nothing is read, then all come, none is lost."""
    monkeypatch.setattr(module, "_MAX_ENTRIES", 16)
    monkeypatch.setattr(module, "_MAX_BYTES", 3000)
    messages = Origin(*(message(number, size) for number in range(count)), ends=True)

    async def late(timeline: Timeline) -> list[Entry]:
        while messages.given < (16 if not size else 3):
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert messages.given == (16 if not size else 3)
        assert (2, 9) == (timeline.missed, timeline.passed)
        return await everything(timeline)

    assert list(range(count)) == told(messages, read=late)


def test_a_closed_timeline_ends() -> None:
    """Reading it again gives nothing, and closing it again does nothing."""

    async def close(timeline: Timeline) -> list[Entry]:
        await timeline.close()
        await timeline.close()
        return await everything(timeline)

    assert [] == told(Origin(message(1)), read=close)
