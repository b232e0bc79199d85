"""A connection that heals: calls fail while the server is away, listening goes on by itself."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
from asyncpg import exceptions

from pbus.bus.pgmq.server import session
from pbus.bus.pgmq.server.connection_log import ConnectionLog
from pbus.bus.pgmq.server.endpoint import LOST, MISSING, TROUBLE, Endpoint, failure
from pbus.bus.pgmq.server.former_sessions import FormerSessions
from pbus.bus.pgmq.server.installation import BUILD_TIMEOUT_S
from pbus.concurrency.backoff import Backoff
from pbus.errors import BusUnavailableError

CALL_TIMEOUT_S = 10.0
BYTES_PER_S = 1024 * 1024  # what a statement carries at least, once it has begun
_LARGE = 8 * BYTES_PER_S  # more than that needs more time on the server than others have
_CLASHES = (exceptions.DeadlockDetectedError, exceptions.SerializationError)
_TRIES = 4
_CLOSE_S = 1.0  # for a connection that is cut off

Heard = Callable[[str, str], None]
Arguments = Callable[[], tuple[Any, ...]]


class HealingConnection:
    """One connection to the database, made when it is needed and again when it broke.

    Args:
        endpoint: The database.
        name: For the log.

    Attributes:
        on_notify: Called with (channel, payload) of what is listened to; makes `run` useful.
        on_connecting: Called at each (re)connection, before anything is heard of it.
        on_connect: Called after each (re)connection: what was said meanwhile is lost.
    """

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.name = name
        self.on_notify: Heard | None = None
        self.on_connecting: Callable[[], None] | None = None
        self.on_connect: Callable[[], None] | None = None
        self.url = endpoint.url
        self._endpoint = endpoint
        self._channels: set[str] = set()
        self._connection: asyncpg.Connection[Any] | None = None
        self._lock = asyncio.Lock()
        self._is_damaged = False
        self._deadline: asyncio.Timeout | None = None  # of what is under way
        self._log = ConnectionLog(name, endpoint.url)
        self._connected_at = 0.0
        self._statement_s = session.STATEMENT_S  # after which the server ends a statement
        self._former = FormerSessions()
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_lost = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None and not self._connection.is_closed()

    async def call(
        self,
        sql: str,
        *arguments: Any,
        made: Arguments | None = None,
        is_repeatable: bool = True,
        size: int = 0,
    ) -> list[Any]:
        """Run one statement and return its rows.

        A caller that is cancelled leaves the statement to end by itself: cancelling it on the
        server would take another connection, and leave open whether it had been done.

        Args:
            sql: The statement.
            arguments: Its parameters.
            made: Makes them instead, once there is a connection that has told what it has to tell.
            is_repeatable: Say it once more when the connection broke under it.
            size: Bytes it carries, there or back, if they are many.

        Raises:
            BusUnavailableError: The server is away, or refuses.
            BrokerFaultError: It cannot do this.
        """
        task = asyncio.create_task(
            self._call(sql, made or (lambda: arguments), is_repeatable, size),
            name=f"pbus {self.name} call",
        )
        self._calls.add(task)
        task.add_done_callback(self._forget)
        rows: list[Any] = await asyncio.shield(task)
        return rows

    async def listen(self, channel: str) -> None:
        """Hear a channel, from now on and on every connection to come.

        Raises:
            BusUnavailableError: Not confirmed now; it will be when the server is back.
        """
        self._channels.add(channel)
        async with self._lock:
            await self._guarded(self._listen_on(channel))

    async def unlisten(self, channel: str) -> None:
        """Hear a channel no longer."""
        self._channels.discard(channel)
        async with self._lock:
            if self._connection is not None and self.is_up:
                with contextlib.suppress(*TROUBLE):
                    await self._connection.remove_listener(channel, self._heard)

    async def run(self) -> None:
        """Keep connected until cancelled."""
        backoff = Backoff()
        while True:
            try:
                async with self._lock:
                    await self._guarded(self._connect())
                backoff.reset()
                await self._is_lost.wait()
            except BusUnavailableError:
                await backoff.pause()

    async def close(self) -> None:
        """End what is under way within its deadline, unless the server is away; disconnect."""
        calls = set(self._calls)
        if calls and self.is_up:
            _, calls = await asyncio.wait(calls, timeout=CALL_TIMEOUT_S)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls, timeout=_CLOSE_S)
        await self._drop()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may be gone

    async def _call(
        self,
        sql: str,
        made: Arguments,
        is_repeatable: bool,  # noqa: FBT001
        size: int,
    ) -> list[Any]:
        limit_s = CALL_TIMEOUT_S + size / BYTES_PER_S
        statement_s = session.STATEMENT_S + (size / BYTES_PER_S if size > _LARGE else 0.0)
        async with self._lock:
            for left in reversed(range(_TRIES)):
                was_up = self.is_up
                try:
                    rows: list[Any] = await self._guarded(
                        self._fetch(sql, made, statement_s), limit_s
                    )
                except BusUnavailableError as error:
                    if not left or not self._is_worth_a_retry(
                        error.__cause__, is_new=not was_up, is_first=left == _TRIES - 1,
                        is_repeatable=is_repeatable,
                    ):  # fmt: skip
                        self._log.note_fault(sql, error.__cause__, is_up=self.is_up)
                        raise
                else:
                    self._log.note_success(sql)
                    return rows
        raise AssertionError  # pragma: no cover - the last try returns or raises

    def _is_worth_a_retry(
        self, cause: BaseException | None, *, is_new: bool, is_first: bool, is_repeatable: bool
    ) -> bool:
        """Whether a statement that failed may succeed when it is sent again at once."""
        if isinstance(cause, _CLASHES):
            return True
        is_stale = is_repeatable and isinstance(cause, LOST)
        return not is_new and (is_stale or (self._is_damaged and is_first))

    async def _guarded(self, work: Any, limit_s: float = CALL_TIMEOUT_S) -> Any:
        try:
            async with asyncio.timeout(limit_s) as self._deadline:
                return await work
        except (*TROUBLE, BusUnavailableError) as error:
            is_answer = isinstance(error, asyncpg.PostgresError) and not isinstance(error, LOST)
            if isinstance(error, MISSING):  # the next connection makes it again
                self._is_damaged = True
                is_answer = False
            if not is_answer or not self.is_up:
                await self._drop()
                self._log.note_trouble(error)
            if isinstance(error, BusUnavailableError):
                raise
            raise failure(self.url, error) from error
        except BaseException:
            await self._drop()
            raise

    async def _fetch(self, sql: str, made: Arguments, statement_s: float) -> list[Any]:
        connection = await self._connect()
        if statement_s != self._statement_s:
            await connection.execute(f"SET statement_timeout = {statement_s * 1000:.0f}")
            self._statement_s = statement_s
        rows: list[Any] = await connection.fetch(sql, *made())
        return rows

    async def _connect(self) -> "asyncpg.Connection[Any]":
        if self._connection is not None and self.is_up:
            return self._connection
        await self._drop()
        connection = await self._endpoint.connect(
            is_damaged=self._is_damaged, building=self._building
        )
        self._connection, self._is_damaged = connection, False
        self._statement_s = session.STATEMENT_S
        self._connected_at = asyncio.get_running_loop().time()
        self._is_lost.clear()
        await self._former.end(connection)
        if self.on_connecting is not None:
            self.on_connecting()
        connection.add_termination_listener(self._terminated)
        for channel in sorted(self._channels):
            await connection.add_listener(channel, self._heard)
        self._log.note_connected()
        if self.on_connect is not None:
            self.on_connect()
        return connection

    @contextlib.contextmanager
    def _building(self) -> Iterator[None]:
        """Stop the clock of the call under way; the work in the block has its own deadline."""
        deadline, now = self._deadline, asyncio.get_running_loop().time
        if deadline is None:
            yield
            return
        left_s = (deadline.when() or now()) - now()
        deadline.reschedule(now() + BUILD_TIMEOUT_S)
        yield
        deadline.reschedule(now() + left_s)

    async def _listen_on(self, channel: str) -> None:
        connection = await self._connect()
        await connection.add_listener(channel, self._heard)  # a second time is no second listener

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*TROUBLE):  # a pool may have taken it back
                self._former.add(connection.get_server_pid(), self._connected_at)
                connection.remove_termination_listener(self._terminated)
            await self._endpoint.close(connection)
        self._is_lost.set()

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        del connection, pid
        if self.on_notify is not None:
            self.on_notify(channel, str(payload))

    def _terminated(self, connection: object) -> None:
        if connection is self._connection or self._connection is None:
            self._is_lost.set()
            self._log.note_trouble(ConnectionResetError(104, "the connection was closed"))
