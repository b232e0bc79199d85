"""Settings of a session on the server, whatever its role and its database are set to."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Any

import asyncpg
from asyncpg import exceptions

from pbus.errors import BrokerPoolerError, BusUnavailableError

STATEMENT_S = 9.0  # a statement that takes longer ends on the server, before its caller gives it up
_PROBE_S = 2.0  # a notification takes a millisecond

# Plans are made once, while tables are still empty, and kept: they have to use the indexes that
# matter when the tables are full. Making them again, for arrays of just this length, takes longer than
# to run them; compiling them, a hundred times as long.
#
# The caller of a statement may be gone, so the server ends it. With another isolation two senders to one
# queue would fail. A role that only reads unless it says otherwise says so; a database or a server
# that was made read-only is left alone. What send() returned for is on the disk.
_SETTINGS = """SET application_name = 'pbus'; SET jit = off; SET plan_cache_mode = force_generic_plan;
  SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
  SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
  SET idle_session_timeout = 0; SET default_transaction_isolation = 'read committed';
  SET default_transaction_deferrable = off; SET search_path = pg_catalog, pg_temp;
  SET DateStyle = 'ISO, MDY'; SET IntervalStyle = postgres; SET TimeZone = 'UTC';
  SET bytea_output = hex; SET standard_conforming_strings = on; SET array_nulls = on;
  SET row_security = on; SET check_function_bodies = on;
  DO $$ BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN SET synchronous_commit = on; END IF;
    IF current_setting('transaction_timeout', true) <> '0' THEN SET transaction_timeout = 0; END IF;
    IF current_setting('default_transaction_read_only') = 'on' AND EXISTS (
      SELECT FROM pg_catalog.pg_settings
       WHERE name = 'default_transaction_read_only' AND source IN ('user', 'database user')) THEN
      SET default_transaction_read_only = off;
    END IF;
  END $$"""
# What prepared statements end with where each may reach another session.
_SCATTERED = (
    exceptions.InvalidSQLStatementNameError,
    exceptions.DuplicatePreparedStatementError,
)


async def prepare(connection: "asyncpg.Connection[Any]", url: str) -> None:
    """Set what behaviour depends on.

    Raises:
        BusUnavailableError: The server takes no writes.
    """
    await connection.execute(f"{_SETTINGS}; SET statement_timeout = {STATEMENT_S * 1000:.0f}")
    found = connection.get_settings()
    if getattr(found, "in_hot_standby", "off") == "on":
        raise BusUnavailableError(url, "it is read-only, a standby", hint=_PRIMARY)
    if getattr(found, "default_transaction_read_only", "off") == "on":
        raise BusUnavailableError(
            url, "it is read-only (default_transaction_read_only)", hint=_PRIMARY
        )


_PRIMARY = "is it the primary? a URL may name several hosts: postgresql://user@a,b/database"


async def check_pooler(
    connection: "asyncpg.Connection[Any]",
    url: str,
    another: Callable[[], contextlib.AbstractAsyncContextManager["asyncpg.Connection[Any]"]],
) -> None:
    """See that what speaks to us is one session, not a pool of them.

    Args:
        connection: To the server, fresh.
        url: Where it is, for the error.
        another: Opens a second connection to it for a moment.

    Raises:
        BrokerPoolerError: Sessions are not kept, so neither are subscriptions.
    """
    try:
        if await connection.fetchval("SELECT pg_backend_pid()") == connection.get_server_pid():
            return
        async with another() as other:
            is_kept = await _hears(connection, other)
    except _SCATTERED:
        is_kept = False
    if not is_kept:
        raise BrokerPoolerError(url)


async def _hears(connection: "asyncpg.Connection[Any]", other: "asyncpg.Connection[Any]") -> bool:
    """Whether one connection hears what is said on the other."""
    channel, heard = f"pbus_probe_{secrets.token_hex(8)}", asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    await connection.add_listener(channel, hear)
    await other.execute(f"NOTIFY {channel}")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PROBE_S):
            await heard.wait()
    await connection.remove_listener(channel, hear)
    return heard.is_set()
