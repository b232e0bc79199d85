"""Databases that others administer: roles with few rights, settings of roles, servers that refuse."""

import asyncio
import logging

import asyncpg
import pytest
from msgspec import structs

from pbus.bus import connect
from pbus.errors import BrokerFaultError, BrokerPoolerError
from pbus.leases import Lease
from pbus.messages import BusDataMessage, BusSystemMessage
from pbus.settings import DeliveryOptions
from support.listeners import Listener
from support.pooler import PROGRAM, PgBouncer, StandIn
from support.postgres import query
from support.rights import documented_grants
from support.waiting import PATIENCE_S, run, until

pytestmark = pytest.mark.pgmq

SETTINGS = {
    "statement_timeout": "20",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "idle_session_timeout": "300",
    "transaction_timeout": "20",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "default_transaction_read_only": "on",
    "search_path": "nowhere",
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "sql_standard",
    "TimeZone": "'Asia/Kathmandu'",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "client_encoding": "LATIN1",
    "row_security": "off",
    "jit": "on",
    "plan_cache_mode": "force_custom_plan",
    "session_replication_role": "replica",
    "synchronous_commit": "off",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "array_nulls": "off",
}


class Pearl(BusDataMessage):
    """A numbered message that is kept."""

    number: int
    text: str = "snow ☃ \0 \\ ' $1"


class Shout(BusSystemMessage):
    """A numbered message that is not."""

    number: int


async def uses_all(url, channel) -> None:
    """Do all that processes do: queues that come and go, both lanes, retries, leases, a tap."""
    failed = []

    async def handle(message):
        if isinstance(message, Pearl) and message.number == 1 and not failed:
            failed.append(message)
            raise ValueError

    listener = Listener("w", handle)
    async with connect(url, channel=channel) as here, connect(url, channel=channel) as there:
        await there.subscribe(listener)
        async with here.tap() as tap:
            for number in range(3):
                await here.send(Pearl(source="a", target="w", number=number))
                await here.send(Shout(source="a", number=number))
            await here.send(Pearl(source="a", number=3))
            await until(lambda: len(listener.messages) == 7)
            await anext(aiter(tap))
        assert {"snow ☃ \0 \\ ' $1"} == {
            one.text for one in listener.messages if isinstance(one, Pearl)
        }
        await here.leases.put_record("record", b"x", ttl_s=60)
        assert {"record": b"x"} == await there.leases.records()
        await here.leases.drop_record("record")
        assert [] == await here.leases.leases()
        await there.queues.purge("w", remove=True)
        assert [] == await here.queues.stats()
        assert [] == await here.queues.dead_letters()
        assert 0 == await here.queues.drop_dead(["1"])


def name_of(url) -> str:
    """The database of a URL."""
    return url.split("/")[3].split("?")[0]


def granted_to(role, database) -> list[str]:
    """The statements that README tells administrators to run for a role."""
    lines = documented_grants()
    return [line.replace("shop_app", role).replace("shop", name_of(database)) for line in lines]


def test_documented_grants_suffice(database, channel, postgres):
    """After an administrator ran pbus once, a role with README's grants needs nothing else."""
    role = f"app_{channel[5:20]}"
    statements = granted_to(role, database)
    assert len(statements) >= 2

    async def main():
        await query(database, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        delivery_options = DeliveryOptions(declared=frozenset({"w"}))
        async with connect(database, channel=channel, delivery_options=delivery_options) as bus:
            await bus.queues.open("w", durable=True)
        await query(database, f"CREATE ROLE {role} LOGIN")
        await query(database, f"REVOKE ALL ON DATABASE {name_of(database)} FROM PUBLIC")
        for statement in statements:
            await query(database, statement)
        await uses_all(f"{database}&role={role}", channel)
        await claims_over_forged(f"{database}&role={role}", channel)

    run(main())


async def claims_over_forged(url, channel) -> None:
    """Take a name that a process without the key has, and keep it."""
    lease = Lease(name="clerk", incarnation="p1.000001", runner="r", host="h", pid=1)
    forged = structs.replace(lease, incarnation="p2.000001")
    key = "a-key-of-the-administered"
    async with connect(url, channel=channel) as burglar:
        assert None is await burglar.leases.claim(forged)
    async with connect(url, channel=channel, key=key) as bus:
        assert None is await bus.leases.claim(lease)
        await bus.leases.release(["p1"])


FORBIDDEN = """
SELECT * FROM public.books
SELECT * FROM ledger.entries
INSERT INTO public.books VALUES (1)
SELECT * FROM pbus.membership
SELECT * FROM pbus.enqueued_count
SELECT * FROM pgmq.meta
SELECT * FROM pgmq.{queue}
SELECT pgmq.send('{name}', '{{}}'::jsonb)
SELECT pgmq.read('{name}', 1, 1)
SELECT pgmq.purge_queue('{name}')
SELECT pgmq.drop_queue('{name}')
SELECT pgmq.create('mine')
INSERT INTO pbus.meta VALUES ('x')
UPDATE pbus.lease SET body = ''
DELETE FROM pbus.lease
DELETE FROM pbus.dead_letter
TRUNCATE pbus.queue
DROP TABLE pbus.lease
DROP SCHEMA pbus CASCADE
DROP SCHEMA ledger CASCADE
DROP FUNCTION pbus.lease_ms()
ALTER FUNCTION pbus.lease_ms() SECURITY INVOKER
ALTER TABLE pbus.lease ADD COLUMN x text
CREATE OR REPLACE FUNCTION pbus.lease_ms() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'
CREATE TABLE pbus.mine (x int)
CREATE TABLE public.mine (x int)
CREATE TRIGGER mine BEFORE UPDATE ON pbus.lease EXECUTE FUNCTION suppress_redundant_updates_trigger()
CREATE SCHEMA mine
CREATE TEMPORARY TABLE mine (x int)
CREATE ROLE mine
DROP EXTENSION plpgsql CASCADE
SELECT pbus.queue_remove(1)
SELECT pbus.queue_build_put('{base}')
COPY pbus.meta TO PROGRAM 'true'
SELECT pg_read_file('postgresql.conf')
"""


def test_documented_grants_allow_nothing_else(database, channel, postgres):
    """Other schemas, the queues themselves, what is made and dropped: all that is refused."""
    role = f"app_{channel[5:20]}"

    async def main():
        async with connect(database, channel=channel) as bus:
            await bus.subscribe(Listener("w"))
            await bus.send(Pearl(source="a", target="w", number=1))
        for statement in (
            "CREATE TABLE public.books (x int)", "CREATE SCHEMA ledger",
            "CREATE TABLE ledger.entries (x int)",
            f"CREATE ROLE {role} LOGIN", f"REVOKE ALL ON DATABASE {name_of(database)} FROM PUBLIC",
            *granted_to(role, database),
        ):  # fmt: skip
            await query(database, statement)
        ((base,),) = await query(database, "SELECT base FROM pbus.queue WHERE name = 'w'")
        names = {"base": base, "name": f"{base}_d", "queue": f"q_{base}_d"}
        ((count,),) = await query(database, f"SELECT count(*) FROM pgmq.{names['queue']}")
        application = await asyncpg.connect(f"{database}&role={role}")
        allowed = []
        for statement in filter(None, FORBIDDEN.format(**names).split("\n")):
            try:
                await application.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
            allowed.append(statement)
        await application.close()
        assert [] == allowed
        assert count == (await query(database, f"SELECT count(*) FROM pgmq.{names['queue']}"))[0][0]

    run(main())


def test_settings_change_nothing(database, channel, postgres):
    """Whatever is set for a role or a database, pbus does the same."""

    async def main():
        ((version,),) = await query(database, "SHOW server_version_num")
        for name, value in SETTINGS.items():
            if int(version) >= 170000 or name != "transaction_timeout":
                set_it = f"ALTER ROLE pbus IN DATABASE {name_of(database)} SET {name} = {value}"
                await query(postgres.url(), set_it)
        await uses_all(database, channel)

    run(main())


@pytest.mark.parametrize("pool", [StandIn, *([PgBouncer] if PROGRAM else [])])
def test_transaction_pool_is_named(database, channel, pool):
    """A pool that keeps no sessions is refused at the start, with what to do."""

    async def main():
        async with pool(database) as pooler:
            with pytest.raises(BrokerPoolerError, match="pool_mode=session"):
                await connect(pooler.url, channel=channel).start()

    run(main())


@pytest.mark.parametrize("is_pooled", [False, *([True] if PROGRAM else [])])
def test_sessions_are_taken(database, channel, is_pooled):
    """Directly, or through a pool that keeps sessions, all goes on as ever."""

    async def main():
        if not is_pooled:
            await uses_all(database, channel)
            return
        async with PgBouncer(database, "session") as pooler:
            await uses_all(pooler.url, channel)

    run(main())


def cut(name) -> str:
    """SQL that ends the sessions of a database's users."""
    return f"""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = '{name}' AND pid <> pg_backend_pid()"""


# What an administrator does, what undoes it, and what is said of it.
REFUSALS = {
    "a primary that was replaced": (
        ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"],
        [
            "SET default_transaction_read_only = off",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        ],
        "it is read-only",
    ),
    "a role that may not log in": (
        ["ALTER ROLE pbus NOLOGIN", cut("{name}")],
        ["ALTER ROLE pbus LOGIN"],
        "not permitted to log in",
    ),
    "a database without free connections": (
        ["ALTER DATABASE {name} ALLOW_CONNECTIONS false", cut("{name}")],
        ["ALTER DATABASE {name} ALLOW_CONNECTIONS true"],
        "not currently accepting connections",
    ),
}


def test_refusals_heal(own_postgres, channel, caplog):
    """A server that refuses live workers is named, once a connection, and all goes on after that."""
    url = own_postgres.create_database()
    name = name_of(url)

    async def main():
        listener = Listener("w")
        delivery_options = DeliveryOptions(declared=frozenset({"w"}))
        options = {
            "channel": channel,
            "delivery_options": delivery_options,
            "send_timeout": PATIENCE_S,
        }
        administrator = await asyncpg.connect(own_postgres.url())
        async with connect(url, **options) as here, connect(url, **options) as there:
            await there.subscribe(listener)
            for number, (do, undo, reason) in enumerate(REFUSALS.values()):
                caplog.clear()
                for statement in do:
                    await administrator.execute(statement.format(name=name))
                sending = asyncio.create_task(
                    here.send(Pearl(source="a", target="w", number=number))
                )
                await until(lambda reason=reason: reason in caplog.text)
                await until(lambda: not (here.is_connected or there.is_connected))
                for statement in undo:
                    await administrator.execute(statement.format(name=name))
                await sending
                await listener.heard(number + 1)
                said = [record for record in caplog.records if reason in record.getMessage()]
                assert 1 <= len(said) <= 4, [record.getMessage() for record in said]
        await administrator.close()
        assert [*range(len(REFUSALS))] == [one.number for one in listener.messages]

    with caplog.at_level(logging.WARNING):
        run(main())


FAIL = """CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{code}'; END $$;
  CREATE TRIGGER fail BEFORE UPDATE ON pbus.{table} FOR EACH ROW EXECUTE FUNCTION public.fail()"""


@pytest.mark.parametrize("table", ["enqueued_count", "dequeued_count"])
def test_full_disk_is_said_once(database, channel, caplog, table):
    """What the server cannot do while its disk is full is an error in the log, once, and then done."""

    async def main():
        listener = Listener("w")
        connection = await asyncpg.connect(database)
        async with connect(database, channel=channel, send_timeout=PATIENCE_S) as bus:
            await bus.subscribe(listener)
            await connection.execute(FAIL.format(code="53100", table=table))
            sending = asyncio.create_task(bus.send(Pearl(source="a", target="w", number=1)))
            await until(lambda: "SQLSTATE 53100" in caplog.text)
            await asyncio.wait({sending}, timeout=0.5)  # it tries again and again
            await connection.execute("DROP FUNCTION public.fail CASCADE")
            await sending
            await listener.heard(1)
            async with asyncio.timeout(PATIENCE_S):
                while any(one.backlog for one in await bus.queues.stats()):
                    await asyncio.sleep(0.01)
        await connection.close()
        said = [one for one in caplog.records if "SQLSTATE 53100" in one.getMessage()]
        assert [logging.ERROR] == [one.levelno for one in said]

    with caplog.at_level(logging.WARNING):
        run(main())


def test_impossible_message_is_told_at_once(database, channel):
    """What the server will never store is the sender's error, and the next message goes through."""

    async def main():
        listener = Listener("w")
        connection = await asyncpg.connect(database)
        async with connect(database, channel=channel, send_timeout=PATIENCE_S) as bus:
            await bus.subscribe(listener)
            await connection.execute(FAIL.format(code="54000", table="enqueued_count"))
            with pytest.raises(BrokerFaultError, match="could not extend file"):
                await bus.send(Pearl(source="a", target="w", number=1))
            await connection.execute("DROP FUNCTION public.fail CASCADE")
            await bus.send(Pearl(source="a", target="w", number=2))
            assert [2] == [one.number for one in await listener.heard(1)]
        await connection.close()

    run(main())
