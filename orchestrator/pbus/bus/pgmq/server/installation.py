"""The schema of pbus in the database: PGMQ, and tables and functions of its own."""

import contextlib
import hashlib
import importlib
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import asyncpg

from pbus.errors import BackendMissingError, PgmqMissingError

_FUNCTIONS = (
    "leases.sql",
    "queue_counts.sql",
    "queues.sql",
    "queue_purge.sql",
    "queue_push.sql",
    "queue_put.sql",
    "queue_put_one.sql",
    "queue_fetch.sql",
    "queue_settle.sql",
    "queue_requeue.sql",
    "stream.sql",
    "erase.sql",
    "rights.sql",
)
# What the newest of what we use of PGMQ is called with.
_NEEDED = "pgmq.set_vt(text, bigint[], timestamptz)"
_BUILD = "SELECT pbus.queue_build_fetch(base), pbus.queue_build_put(base) FROM pbus.queue"
_MEND = "SELECT pbus.queue_repair()"
_NAMES = re.compile(
    r"CREATE (?:OR REPLACE |UNLOGGED )?(TABLE|FUNCTION)(?: IF NOT EXISTS)? pbus\.(\w+)"
)
_FOUND = """SELECT
  (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relname = ANY($1)) +
  (SELECT count(DISTINCT proname) FROM pg_proc WHERE pronamespace = n.oid AND proname = ANY($2))
  FROM pg_namespace n WHERE nspname = 'pbus'"""
BUILD_TIMEOUT_S = 300.0  # to make or mend tables, functions and counts of all queues
_LOCK = 0x70627573  # "pbus", one installation at a time in a database
_FORMAT = "2"  # of the tables; another format would be another schema's work


async def install(
    connection: "asyncpg.Connection[Any]",
    url: str,
    *,
    is_damaged: bool = False,
    building: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> None:
    """Make sure everything is there; safe to call from many processes at once.

    Args:
        connection: To the database.
        url: Where it is, for errors.
        is_damaged: Something was missing: look at everything, not only at the version.
        building: Entered for work that takes as long as there are queues and messages.

    Raises:
        PgmqMissingError: PGMQ's SQL is not there, or too old, and cannot be installed.
        BackendMissingError: The package that has the SQL is not installed.
    """
    functions, stamp = _own()
    if await _stamp(connection) == stamp and not is_damaged:
        return
    with building():
        await _build(connection, url, stamp, functions, is_damaged=is_damaged)


async def _build(
    connection: "asyncpg.Connection[Any]",
    url: str,
    stamp: str,
    functions: str,
    *,
    is_damaged: bool,
) -> None:
    tables = _sql("tables.sql")
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = {BUILD_TIMEOUT_S * 1000:.0f}")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if await _stamp(connection) == stamp and await _is_whole(connection, tables + functions):
            if is_damaged:  # else another process has just installed all of it
                await connection.execute(_MEND)
            return
        await _install_pgmq(connection, url)
        if not await connection.fetchval(
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'pbus'"
        ):
            await connection.execute("CREATE SCHEMA pbus")
        await connection.execute(tables)
        await connection.execute(functions)
        await connection.execute(_BUILD)
        await connection.execute(_MEND)
        await connection.execute("DELETE FROM pbus.meta")
        await connection.execute("INSERT INTO pbus.meta VALUES ($1)", stamp)


async def _is_whole(connection: "asyncpg.Connection[Any]", sql: str) -> bool:
    """Whether all that this SQL makes is there, and PGMQ."""
    made = set(_NAMES.findall(sql))
    names = [[name for kind, name in made if kind == one] for one in ("TABLE", "FUNCTION")]
    is_there: bool = await connection.fetchval(_FOUND, *names) == len(made) and await has_pgmq(
        connection
    )
    return is_there


async def has_pgmq(connection: "asyncpg.Connection[Any]") -> bool:
    """Whether PGMQ's functions are there, as new as needed."""
    return not await connection.fetchval("SELECT to_regprocedure($1) IS NULL", _NEEDED)


async def is_installed(connection: "asyncpg.Connection[Any]") -> bool:
    """Whether pbus has ever been used in this database."""
    return await _has(connection, "pbus", "meta")


async def state_of(connection: "asyncpg.Connection[Any]") -> str:
    """Whether pbus' tables and functions are "current", "missing" or of an "other" version."""
    found = await _stamp(connection)
    if found is None:
        return "missing"
    return "current" if found == _own()[1] else "other"


def _own() -> tuple[str, str]:
    """The functions of this version of pbus, and their stamp."""
    functions = "".join(map(_sql, _FUNCTIONS))
    return functions, hashlib.sha256((_FORMAT + functions).encode()).hexdigest()[:16]


async def _stamp(connection: "asyncpg.Connection[Any]") -> str | None:
    if not await _has(connection, "pbus", "meta"):
        return None
    stamp: str | None = await connection.fetchval("SELECT stamp FROM pbus.meta")
    return stamp


async def _has(connection: "asyncpg.Connection[Any]", schema: str, table: str) -> bool:
    # Not to_regclass: it may remember from before the lock that there was none.
    sql = """SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = $1 AND c.relname = $2"""
    return bool(await connection.fetchval(sql, schema, table))


async def _install_pgmq(connection: "asyncpg.Connection[Any]", url: str) -> None:
    if not await _has(connection, "pgmq", "meta"):
        known = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pgmq'"
        if await connection.fetchval(known):
            await connection.execute("CREATE EXTENSION pgmq")
        else:
            sql = _shipped_sql()
            await connection.execute("CREATE SCHEMA IF NOT EXISTS pgmq")
            await connection.execute(sql)
    if not await has_pgmq(connection):
        raise PgmqMissingError(url, f"its PGMQ is too old, it has no {_NEEDED}")


def _shipped_sql() -> str:
    # Loaded here: it brings a second driver along, 0.3 s that only this one start pays.
    try:
        sql: str = importlib.import_module("pgmq.install").get_embedded_install_sql()
    except ModuleNotFoundError as error:
        raise BackendMissingError("PGMQ", str(error.name), "pgmq>=1.1") from error
    return sql


def _sql(name: str) -> str:
    return files("pbus.bus.pgmq").joinpath("sql", name).read_text(encoding="utf-8")
