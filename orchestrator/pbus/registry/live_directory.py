"""A view of other workers that hears of changes at once where it is used, and polls where it is not."""

import abc
import asyncio
import logging

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.concurrency.background import TaskOwner
from pbus.errors import PbusError
from pbus.registry.directory import Directory

logger = logging.getLogger(__name__)

_NEWS_S = 0.5  # from the removal of a dead worker's lease to the news of it


class LiveDirectory(Directory, abc.ABC):
    """A directory that may leave news of workers to its polls until something asks for a worker.

    Args:
        bus: Carries the news.
    """

    def __init__(self, bus: WorkerBus) -> None:
        super().__init__()
        self._bus = bus
        self._tasks = TaskOwner()
        self._subscriber: BusSubscriber | None = None  # None: it hears news from the start
        self._following: asyncio.Task[None] | None = None
        self._is_wanted = self._is_started = False

    @property
    def remote_workers(self) -> list[str]:
        """The ready workers of other runners."""
        if not self.is_live:
            self._note_asked(None)
        return [name for name in self._table.ready_names() if not self._is_own(name)]

    def follow_when_asked(self, subscriber: BusSubscriber) -> None:
        """Hear of other workers only once something here asks for them; call it before start().

        Until then changes come with the heartbeats: most of many processes send nothing, and news for
        each of them would grow with the square of their number. Has no effect on a bus that carries no news.

        Args:
            subscriber: Passes news to this registry; not subscribed yet.
        """
        if not self._bus.carries_news:
            return
        subscriber.news = "none"
        self._subscriber = subscriber
        self._set_live(is_live=False)
        self._table.on_asked = lambda: self._note_asked(None)

    async def _go_live(self) -> None:
        following = self._follow_soon()
        if following is not None and self._bus.is_connected:
            await asyncio.wait([following])

    @abc.abstractmethod
    async def beat(self) -> None:
        """Renew own leases and learn what changed."""

    @abc.abstractmethod
    def drop_missing(self) -> None:
        """Remove the workers that a reading missed, but not after an outage of the store."""

    @abc.abstractmethod
    def _is_own(self, name: str) -> bool:
        """Whether a worker is of this runner: that needs no news."""

    async def _begin_following(self) -> None:
        """Note that polls have begun; follow if something has asked before."""
        self._is_started = True
        if self._is_wanted:
            await self.follow()

    def _note_asked(self, name: str | None) -> None:
        if name is None or not self._is_own(name):
            self._follow_soon()

    def _follow_soon(self) -> asyncio.Task[None] | None:
        self._is_wanted = True
        if self._is_started and self._following is None and self._subscriber and _is_in_loop():
            work = self._follow(self._subscriber)
            self._following = self._tasks.spawn(work, "pbus registry following")
        return self._following

    async def _follow(self, subscriber: BusSubscriber) -> None:
        subscriber.news = "all"
        if subscriber.on_news_wanted is not None:
            subscriber.on_news_wanted()
        try:
            await self._bus.hear_news()
        except PbusError as error:
            logger.warning("news of workers come with the heartbeats for now: %s", error)
        self._table.is_live = True  # so that the reading removes none of which news may come
        await self.beat()
        self._set_live(is_live=True)
        self._tasks.spawn(self._drop_missing(), "pbus registry first reading")

    async def _drop_missing(self) -> None:
        """Remove what the first reading missed, unless news say meanwhile why it is gone."""
        await asyncio.sleep(_NEWS_S)
        self.drop_missing()

    def _set_live(self, *, is_live: bool) -> None:
        self.is_live = self._table.is_live = is_live


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # a thread of the user's
        return False
    return True
