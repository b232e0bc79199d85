"""When the supervisor tells its news: not before those who follow can have come back."""

import asyncio
from typing import Any
from unittest import mock

import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.leases import Lease
from pbus.process.supervisor import bus_client
from pbus.process.supervisor.bus_client import SupervisorBusClient
from pbus.process.supervisor.state_events import StateEventQueue
from pbus.process.supervisor_events import StateChanged
from support.waiting import run


class Bus(AsyncQueueBus):
    """A bus whose broker is away when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_there = True
        self.told: list[Any] = []

    @property
    def is_connected(self) -> bool:
        return self.is_there

    async def send(self, message: Any) -> None:
        self.told.append(message)


def test_news_outlive_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be told right after a reconnect waits, even before anybody looked at the bus."""
    monkeypatch.setattr(bus_client, "_STEADY_S", 1e12)
    bus, supervised = Bus(), mock.Mock(news=StateEventQueue("sup", "town"))
    crew, post = mock.Mock(), mock.Mock()
    speaker = SupervisorBusClient(bus, "sup", crew, supervised, post)

    async def main() -> None:
        bus.is_there = False
        speaker._look_at_connection()
        supervised.news.hear(StateChanged("a", "ready", ""))
        bus.is_there = True
        await speaker._say_all()
        assert [] == bus.told

        monkeypatch.setattr(bus_client, "_STEADY_S", 0.0)
        await speaker._say_all()
        assert ["ready"] == [message.state for message in bus.told]

    run(main())


class Registry:
    """Leases of two lives that end together; refuses the first call with what it was told."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble
        self.asked: list[list[str]] = []

    async def release(self, incarnations: list[str]) -> list[Lease]:
        known = {life for asked in self.asked for life in asked}
        self.asked.append(list(incarnations))
        await asyncio.sleep(0)  # as long as it takes, others die
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            self.asked.clear()
            raise trouble
        return [
            Lease(name=life, incarnation=f"{life}-1", runner="r", host="h", pid=1, queued=2)
            for life in incarnations
            if life not in known
        ]


class Post:
    """Gives back three messages a life; fails the first time where it was told to."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble

    async def end(self, incarnation: str) -> int:
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble
        return 3

    def describe(self, given_back: int, leases: list[Lease], _unhandled: int = 0) -> str:
        return f"{given_back} back, {sum(one.queued for one in leases)} waited"


@pytest.mark.parametrize("where", ["registry", "post"])
def test_strange_trouble_ends_nothing(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody expected costs one call, is logged, and the call is made again."""
    bus = Bus()
    trouble = ValueError("not expected")
    bus._leases = Registry(trouble if where == "registry" else None)  # type: ignore[assignment]
    post = Post(trouble if where == "post" else None)
    speaker = SupervisorBusClient(bus, "sup", mock.Mock(), mock.Mock(), post)  # type: ignore[arg-type]

    async def main() -> None:
        assert "" == await speaker.bury("a", "killed")
        assert [] == bus.told
        await speaker._bury_all()

        (told,) = bus.told
        assert ["a"] == [entry.name for entry in told.workers]
        assert "killed" == told.workers[0].gone

    run(main())

    assert "ValueError: not expected" in caplog.text


def test_mass_death_is_one_call() -> None:
    """Of many that die together each learns what became of its messages, with few calls."""
    bus = Bus()
    registry = bus._leases = Registry()  # type: ignore[assignment]
    speaker = SupervisorBusClient(bus, "sup", mock.Mock(), mock.Mock(), Post())  # type: ignore[arg-type]

    async def main() -> None:
        lives = [f"life{number:02}" for number in range(50)]
        left = await asyncio.gather(*(speaker.bury(life, "killed") for life in lives))

        assert ["3 back, 2 waited"] * 50 == left
        assert 50 == len(bus.told)
        assert [1, 49] == [len(asked) for asked in registry.asked]

    run(main())
