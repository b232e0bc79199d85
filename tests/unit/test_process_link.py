"""When the supervisor tells its news: not before those who follow can have come back."""

from typing import Any
from unittest import mock

import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.process import link
from pbus.process.events import StateChanged
from pbus.process.link import BusLink
from pbus.process.news import News
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
    monkeypatch.setattr(link, "_STEADY_S", 1e12)
    bus, supervised = Bus(), mock.Mock(news=News("sup", "town"))
    crew, post = mock.Mock(), mock.Mock()
    speaker = BusLink(bus, "sup", crew, supervised, post)

    async def main() -> None:
        bus.is_there = False
        speaker._look_at_connection()
        supervised.news.hear(StateChanged("a", "ready", ""))
        bus.is_there = True
        await speaker._say_all()
        assert [] == bus.told

        monkeypatch.setattr(link, "_STEADY_S", 0.0)
        await speaker._say_all()
        assert ["ready"] == [message.state for message in bus.told]

    run(main())
