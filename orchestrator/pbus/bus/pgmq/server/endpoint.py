"""The server's address and the way to connect: asyncpg makes the connections, pbus keeps them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import asyncpg
from asyncpg import exceptions

from pbus.bus.pgmq.server import installation, session
from pbus.bus.pgmq.server.address import Address, read_url
from pbus.errors import (
    BrokerFaultError,
    BrokerGrantError,
    BrokerLoginError,
    BrokerRefusedError,
    BrokerVersionError,
    BusError,
    BusUnavailableError,
)
from pbus.urls import mask_url

CONNECT_TIMEOUT_S = 5.0
OLDEST_SERVER = 14
_KEPT = 2  # connections

# What a connection may end with, and what a server may answer.
TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that ended while it looked types up
    OSError,
    TimeoutError,
    EOFError,
)
_NOT_LET_IN = (
    exceptions.InvalidAuthorizationSpecificationError,  # and its child, InvalidPasswordError
    exceptions.InvalidCatalogNameError,
)
LOST = (
    exceptions.PostgresConnectionError,
    # The server ends, or the session was ended; not QueryCanceledError, which leaves the session.
    exceptions.AdminShutdownError,
    exceptions.CrashShutdownError,
    exceptions.CannotConnectNowError,
    exceptions.DatabaseDroppedError,
    exceptions.IdleSessionTimeoutError,
    exceptions.ReadOnlySQLTransactionError,  # it was replaced: the next connection finds out
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
)


# Something that pbus made is not there any more, or is another than this session remembers.
MISSING = (
    exceptions.UndefinedTableError,
    exceptions.UndefinedFunctionError,
    exceptions.UndefinedObjectError,
    exceptions.UndefinedColumnError,
    exceptions.InvalidSchemaNameError,
    exceptions.InternalServerError,
    exceptions.InvalidCachedStatementError,
)
# What the statement is to blame for, not the state that the server is in.
_FAULTS = (
    exceptions.DataError,
    exceptions.IntegrityConstraintViolationError,
    exceptions.ProgramLimitExceededError,
    exceptions.SyntaxOrAccessError,
    exceptions.FeatureNotSupportedError,
    exceptions.PLPGSQLError,
)


class Endpoint:
    """One database, from a DSN, a pool, or a PGMQueue the user made.

    Args:
        dsn: postgresql://…
        pgmq: A pgmq.async_queue.PGMQueue; only its settings (or its pool) are used.
        pool: An asyncpg pool; two of its connections are kept as long as the bus runs.

    Raises:
        BusError: None of them is given, or several.
    """

    def __init__(self, *, dsn: str | None = None, pgmq: Any = None, pool: Any = None) -> None:
        if sum(given is not None for given in (dsn, pgmq, pool)) != 1:
            raise BusError("a bus on Postgres needs one of pgmq, dsn and pool")
        self._pool = pool if pool is not None else getattr(pgmq, "pool", None)
        self._dsn = dsn
        self._address: Address | None = None
        if pgmq is not None and self._pool is None:
            self._address = _address_of(pgmq.config)
        self.url = self._describe(dsn)
        self._is_one_session = False  # as far as we know

    async def connect(
        self,
        *,
        is_damaged: bool = False,
        building: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> "asyncpg.Connection[Any]":
        """A connection to a database that has what pbus needs; TROUBLE otherwise.

        Args:
            is_damaged: Something was missing: look at everything.
            building: Entered while tables and functions are made or mended.
        """
        connection = await self._open_in_time()
        try:
            self._check(connection.get_server_version().major)
            if not self._is_one_session:
                await session.check_pooler(connection, self.url, self._another)
                self._is_one_session = True
            await session.prepare(connection, self.url)
            await installation.install(
                connection, self.url, is_damaged=is_damaged, building=building
            )
        except BaseException:
            await self.close(connection)
            raise
        return connection

    async def _open_in_time(self) -> "asyncpg.Connection[Any]":
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await self.connect_bare()

    @contextlib.asynccontextmanager
    async def _another(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        connection = await self._open_in_time()
        try:
            yield connection
        finally:
            await self.close(connection)

    async def close(self, connection: "asyncpg.Connection[Any]") -> None:
        """Give a connection up without waiting for the other side."""
        with contextlib.suppress(*TROUBLE):
            connection.terminate()
        if self._pool is not None:
            with contextlib.suppress(*TROUBLE):
                await self._pool.release(connection, timeout=1.0)

    def _check(self, version: int) -> None:
        if version < OLDEST_SERVER:
            raise BrokerVersionError(self.url, f"Postgres {version}", f"Postgres {OLDEST_SERVER}")

    async def connect_bare(self) -> "asyncpg.Connection[Any]":
        """A connection to the database as it is; TROUBLE otherwise."""
        if self._pool is not None:
            return await self._borrow(self._pool)
        try:
            if self._address is None:
                self._address = read_url(self._dsn or "")
            return await self._address.connect()
        except ValueError:  # it quotes what it could not read, which may be a password
            hint = "percent-encode special characters in its user, password and folders"
            raise BrokerRefusedError(self.url, "its URL cannot be read", hint=hint) from None

    async def _borrow(self, pool: Any) -> "asyncpg.Connection[Any]":
        if pool.get_max_size() < _KEPT:
            reason = f"the pool's max_size is {pool.get_max_size()}"
            raise BrokerRefusedError(self.url, reason, hint=f"the bus keeps {_KEPT} connections")
        return cast("asyncpg.Connection[Any]", await pool.acquire())

    def _describe(self, dsn: str | None) -> str:
        if dsn:
            return mask_url(dsn)
        known = self._address
        if known is None:
            return "the pool's database"
        return f"postgresql://{known.user}@{known.hosts[0]}:{known.ports[0]}/{known.database}"


def _address_of(config: Any) -> Address:
    return Address(
        hosts=(config.host,),
        ports=(int(config.port),),
        database=config.database,
        user=config.username,
        password=config.password,
    )


def failure(url: str, error: BaseException) -> BusUnavailableError:
    """The error that says what is to be done about this one."""
    if isinstance(error, BusUnavailableError):
        return error
    if isinstance(error, exceptions.InsufficientPrivilegeError):
        return BrokerGrantError(url, str(error))
    if isinstance(error, _NOT_LET_IN):
        return BrokerLoginError(url, str(error))
    if isinstance(error, _FAULTS) and not isinstance(error, MISSING):
        return BrokerFaultError(url, reason_of(error))
    return BusUnavailableError(url, reason_of(error))


def reason_of(error: BaseException) -> str:
    """Say what went wrong, in the words a user needs."""
    if isinstance(error, BusUnavailableError):
        return error.reason
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
