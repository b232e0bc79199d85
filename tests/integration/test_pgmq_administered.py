"""Databases that others administer: roles with few rights, settings of roles, servers that refuse."""

import asyncio
import logging
import re
from pathlib import Path

import asyncpg
import pytest

from pbus.bus import connect
from pbus.bus.mailroom import DeliveryOptions
from pbus.errors import BrokerFaultError, BrokerPoolerError
from pbus.messages import BusDataMessage, BusSystemMessage
from support.listeners import Listener
from support.pooler import PROGRAM, PgBouncer, StandIn
from support.postgres import query
from support.waiting import PATIENCE_S, run, until

pytestmark = pytest.mark.pgmq

README = Path(__file__).parents[2] / "README.md"

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
    """Do all that processes do: mailboxes that come and go, both lanes, retries, leases, a tap."""
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
        await there.mail.purge("w", remove=True)
        assert [] == await here.mail.reports()
        assert [] == await here.mail.dead_letters()
        assert 0 == await here.mail.drop_dead(["1"])


def name_of(url) -> str:
    """The database of a URL."""
    return url.split("/")[3].split("?")[0]


def granted() -> list[str]:
    """The statements that README tells administrators to run for a role."""
    (block,) = re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return [line for line in block.splitlines() if line.strip()]


def test_documented_grants_suffice(database, channel, postgres):
    """After an administrator ran pbus once, a role with README's grants needs nothing else."""
    role = f"app_{channel[5:20]}"
    statements = [
        line.replace("shop_app", role).replace("shop", name_of(database)) for line in granted()
    ]
    assert len(statements) >= 2

    async def main():
        await query(database, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        mail = DeliveryOptions(declared=frozenset({"w"}))
        async with connect(database, channel=channel, mail_options=mail) as bus:
            await bus.mail.open("w", keep=True)
        await query(database, f"CREATE ROLE {role} LOGIN")
        await query(database, f"REVOKE ALL ON DATABASE {name_of(database)} FROM PUBLIC")
        for statement in statements:
            await query(database, statement)
        await uses_all(f"{database}&role={role}", channel)

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
    "a database that takes nobody": (
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
        mail = DeliveryOptions(declared=frozenset({"w"}))
        options = {"channel": channel, "mail_options": mail, "send_timeout": PATIENCE_S}
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


@pytest.mark.parametrize("table", ["intake", "outgo"])
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
                while any(one.backlog for one in await bus.mail.reports()):
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
            await connection.execute(FAIL.format(code="54000", table="intake"))
            with pytest.raises(BrokerFaultError, match="could not extend file"):
                await bus.send(Pearl(source="a", target="w", number=1))
            await connection.execute("DROP FUNCTION public.fail CASCADE")
            await bus.send(Pearl(source="a", target="w", number=2))
            assert [2] == [one.number for one in await listener.heard(1)]
        await connection.close()

    run(main())
