"""How long a command goes on that follows a project."""

import asyncio
import itertools

import pytest

from pbus.client import attachment as module
from pbus.client.attachment import Attachment, while_running
from pbus.errors import NothingRunningError
from pbus.settings import BusSettings
from support.waiting import run

HANDS = 5  # through which a message passes on its way to the screen


class Ending:
    """A supervisor that says something, and is gone at the next look."""

    def __init__(self, said: "asyncio.Queue[str]") -> None:
        self._said = said

    @property
    def is_alive(self) -> bool:
        self._said.put_nowait("goodbye")
        return False


async def pass_on(source: "asyncio.Queue[str]", target: "asyncio.Queue[str]") -> None:
    while True:
        await target.put(await source.get())


def test_last_words_are_heard() -> None:
    """What a supervisor sent before its end is taken in before following ends, however it waits."""

    async def main() -> None:
        queues: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(HANDS)]
        hands = itertools.pairwise(queues)
        passing = [asyncio.create_task(pass_on(one, other)) for one, other in hands]
        heard: list[str] = []

        async def follow() -> None:
            while True:
                heard.append(await queues[-1].get())

        attachment = Attachment(
            "p", BusSettings(url="redis://x", channel="c"), record=Ending(queues[0])
        )  # type: ignore[arg-type]
        with pytest.raises(NothingRunningError):
            await while_running(attachment, follow())
        for task in passing:
            task.cancel()
        assert ["goodbye"] == heard

    run(main())


def test_result_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done while the project runs has its result."""
    monkeypatch.setattr(module, "_LOOK_S", 3600.0)
    attachment = Attachment("p", BusSettings(url="redis://x", channel="c"))

    async def answer() -> int:
        return 42

    async def main() -> None:
        assert 42 == await while_running(attachment, answer())

    run(main())
