"""A Postgres that refuses logins for a while: live workers go on, the reason is named, all heals."""

import asyncio
import logging
from urllib.parse import urlsplit

import pytest

from support.bank import Bank, told
from support.postgres import query
from support.waiting import run, until

pytestmark = pytest.mark.pgmq

OTHERS = "FROM pg_stat_activity WHERE usename = 'teller'"
REFUSALS = {  # how a role is refused, how it is let in again, and the server's words
    "28P01": (
        "ALTER ROLE teller PASSWORD 'other'",
        "ALTER ROLE teller PASSWORD 'secret'",
        "password authentication failed",
    ),
    "53300": (
        "ALTER ROLE teller CONNECTION LIMIT 0",
        "ALTER ROLE teller CONNECTION LIMIT -1",
        "too many connections for role",
    ),
}


@pytest.fixture
def guarded(own_postgres) -> tuple[str, str]:
    """A database's URL for the administrator, and for a role with a password."""
    admin = own_postgres.create_database()
    hba = own_postgres.folder / "data" / "pg_hba.conf"
    hba.write_text("local all teller scram-sha-256\n" + hba.read_text())
    own_postgres.execute("SELECT pg_reload_conf()")
    own_postgres.execute("CREATE ROLE teller LOGIN PASSWORD 'secret' IN ROLE pbus")
    return admin, urlsplit(admin)._replace(netloc="teller:secret@").geturl()


@pytest.mark.parametrize("delivery", ["at-most-once", "at-least-once"])
def test_refused_logins_pass(guarded, channel, delivery, caplog):
    """Password changed, no connection left: what is sent meanwhile arrives afterwards."""
    admin, url = guarded
    caplog.set_level(logging.WARNING)
    bank = Bank(url, channel, delivery)

    async def main():
        async with bank.open():
            for number, (refuse, let_in, reason) in enumerate(REFUSALS.values()):
                await bank.works(10 * number)
                await query(admin, refuse)
                await query(admin, f"SELECT pg_terminate_backend(pid) {OTHERS}")
                sending = asyncio.create_task(bank.gets(10 * number + 1))
                await until(lambda text=reason: told(caplog, text))
                await query(admin, let_in)
                await sending
                await bank.works(10 * number + 2)

    run(main())
    assert "secret" not in caplog.text
    assert all(told(caplog, text) <= 9 for _, _, text in REFUSALS.values())
