"""What is followed is printed until it ends, and what it has left comes last."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, Self

import pytest

from pbus_cli.commands.messages.tail import _say_missed
from pbus_cli.live.following import Following


class Stream:
    """Gives some numbers, then waits for ever or ends."""

    def __init__(self, count: int, *, ends: bool) -> None:
        self._count = count
        self._ends = ends
        self.left = [100, 101, 102]
        self.given = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(self._count):
            self.given += 1
            yield number
        if not self._ends:
            await asyncio.Event().wait()

    def rest(self) -> list[int]:
        """What is left; each once."""
        left, self.left = self.left, []
        return left


CLIENT: Any = SimpleNamespace(project="p")


def printed(
    capfd: pytest.CaptureFixture[str],
    stream: Stream,
    count: int | None = None,
    duration_s: float | None = None,
    after: Callable[["asyncio.Task[None]"], None] = lambda _task: None,
) -> list[str]:
    """The lines of a following that ends."""
    dropped: list[int] = []

    async def main() -> None:
        following = Following(
            str, count, duration_s, may_drop=True, on_end=dropped.append, rest=stream.rest
        )
        task = asyncio.create_task(following.run(CLIENT, stream))
        while stream.given < stream._count:
            await asyncio.sleep(0)
        after(task)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    asyncio.run(main())
    assert [0] == dropped
    return capfd.readouterr().out.split()


@pytest.mark.parametrize(
    ("ends", "count", "duration_s", "expected"),
    [
        (True, None, None, "0 1 2 100 101 102"),
        (False, None, 0.05, "0 1 2 100 101 102"),
        (True, 3, None, "0 1 2"),
        (True, 4, None, "0 1 2 100"),
        (False, 5, 0.05, "0 1 2 100 101"),
    ],
)
def test_what_is_left_comes_last(
    capfd: pytest.CaptureFixture[str],
    ends: bool,
    count: int | None,
    duration_s: float | None,
    expected: str,
) -> None:
    """With the end of what is followed, or with the time; within the number of lines."""
    stream = Stream(3, ends=ends)

    assert expected.split() == printed(capfd, stream, count, duration_s)


def test_an_interrupt_loses_nothing_that_is_held(capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C cancels it: what is left is printed all the same."""
    lines = printed(capfd, Stream(2, ends=False), after=lambda task: task.cancel())

    assert ["100", "101", "102"] == lines[-3:]


@pytest.mark.parametrize(
    ("missed", "is_terminal", "said"),
    [
        (0, False, ""),
        (0, True, "12,000 messages have passed, 0 were missed"),
        (1, False, "1 message passed unseen"),
        (1234, True, "1,234 messages passed unseen"),
    ],
)
def test_the_number_that_was_missed_is_said(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    missed: int,
    is_terminal: bool,
    said: str,
) -> None:
    """On a terminal also that none was; in a pipe only what is wrong."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    _say_missed(12_000, missed)
    err = capsys.readouterr().err

    assert said in err
    assert bool(said) == bool(err)
