"""What pbus needs in the database: PGMQ, and tables and functions of its own in schema pbus."""

import hashlib
import importlib
from importlib.resources import files
from typing import Any

import asyncpg

from pbus.errors import BackendMissingError, PgmqMissingError

_FUNCTIONS = (
    "leases.sql",
    "mailboxes.sql",
    "mail_hand.sql",
    "mail_put.sql",
    "mail_put_one.sql",
    "mail_take.sql",
    "mail_settle.sql",
    "mail_return.sql",
    "wire.sql",
    "erase.sql",
)
# What the newest of what we use of PGMQ is called with.
_NEEDED = "pgmq.set_vt(text, bigint[], timestamptz)"
_BUILD = "SELECT pbus.mail_build_take(queue), pbus.mail_build_put(queue) FROM pbus.mailbox"
_LOCK = 0x70627573  # "pbus", one installation at a time in a database
_FORMAT = "1"  # of the tables; another format would be another schema's work


async def install(connection: "asyncpg.Connection[Any]", url: str) -> None:
    """Make sure everything is there; safe to call from many processes at once.

    Raises:
        PgmqMissingError: PGMQ's SQL is not there, or too old, and cannot be installed.
        BackendMissingError: The package that has the SQL is not installed.
    """
    functions = "".join(map(_sql, _FUNCTIONS))
    stamp = hashlib.sha256((_FORMAT + functions).encode()).hexdigest()[:16]
    if await _stamp(connection) == stamp:
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        found = await _stamp(connection)
        if found == stamp:
            return
        await _install_pgmq(connection, url)
        if found is None:
            await connection.execute("CREATE SCHEMA IF NOT EXISTS pbus")
            await connection.execute("CREATE TABLE pbus.meta (stamp text NOT NULL)")
            await connection.execute("INSERT INTO pbus.meta VALUES ('')")
            await connection.execute(_sql("tables.sql"))
        await connection.execute(functions)
        await connection.execute(_BUILD)
        await connection.execute("UPDATE pbus.meta SET stamp = $1", stamp)


async def is_installed(connection: "asyncpg.Connection[Any]") -> bool:
    """Whether pbus has ever been used in this database."""
    return await _has(connection, "pbus", "meta")


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
    if await connection.fetchval("SELECT to_regprocedure($1) IS NULL", _NEEDED):
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
