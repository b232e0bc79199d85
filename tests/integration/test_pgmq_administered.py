"""Databases that others administer: roles with few rights, settings of roles, servers that refuse."""

import re
from pathlib import Path

import pytest

from pbus.bus import connect
from pbus.bus.mailroom import DeliveryOptions
from pbus.messages import BusDataMessage, BusSystemMessage
from support.listeners import Listener
from support.postgres import query
from support.waiting import run, until

pytestmark = pytest.mark.pgmq

README = Path(__file__).parents[2] / "README.md"

SETTINGS = {
    "statement_timeout": "1",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "idle_session_timeout": "300",
    "transaction_timeout": "1",
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
        if message.number == 1 and not failed:
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
