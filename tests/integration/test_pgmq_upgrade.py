"""A database of the version before: what it keeps is found under its new names, and nothing is left."""

from pathlib import Path

import asyncpg
import pytest

from pbus.bus.pgmq import Endpoint, standalone_store
from pbus.bus.queues.store import Settlement
from support.queue_helpers import backlog, fetch, texts
from support.waiting import run

pytestmark = pytest.mark.pgmq

FORMAT_1 = Path(__file__).parents[1] / "support" / "pgmq_format_1.sql"
BASE = "pbus_0123456789abcdef0123456789abcdef"
OLD = {
    "mailbox",
    "intake",
    "outgo",
    "stream",
    "holder",
    "held",
    "dead",
    "waiter",
    "wire",
    "touched",
}
NAMES = """SELECT relname AS name FROM pg_class WHERE relnamespace = 'pbus'::regnamespace
  UNION SELECT proname FROM pg_proc WHERE pronamespace = 'pbus'::regnamespace"""


async def fill(database: str, channel: str) -> None:
    """Make a mailbox with a message that is free, one in flight and a dead one, as version 1 did."""
    connection = await asyncpg.connect(database)
    await connection.execute(FORMAT_1.read_text())
    for lane in "ds":
        await connection.execute("SELECT pgmq.create($1)", f"{BASE}_{lane}")
    box = await connection.fetchval(
        """INSERT INTO pbus.mailbox (channel, name, queue, is_kept, is_shared, max_backlog, ends_at)
          VALUES ($1, 'box', $2, true, false, 100, now()) RETURNING id""",
        channel, BASE,
    )  # fmt: skip
    ids = [
        await connection.fetchval(
            "SELECT pgmq.send($1, $2::jsonb, $3::jsonb, $4::int)",
            f"{BASE}_d", f'[["{text}", "{{\\"text\\": \\"{text}\\"}}"]]', '{"n": 1, "b": 9}', hidden_s,
        )
        for text, hidden_s in (("free", 0), ("held", 60))
    ]  # fmt: skip
    await connection.execute("INSERT INTO pbus.intake VALUES ($1, 2, 18)", box)
    await connection.execute("INSERT INTO pbus.outgo VALUES ($1, 0, 0)", box)
    await connection.execute(
        "INSERT INTO pbus.holder VALUES ($1, 'gone-1', now() + interval '1 h', false)", channel
    )
    await connection.execute(
        """INSERT INTO pbus.held (mailbox, lane, msg_id, channel, holder, held_at, size, gone, started)
          VALUES ($1, 'd', $2, $3, 'gone-1', now(), 1, '{}', '{}')""",
        box, ids[1], channel,
    )  # fmt: skip
    await connection.execute(
        """INSERT INTO pbus.dead (mailbox, lane, letter, reason, attempt, crashes, buried_at)
          VALUES ($1, 'd', '["dead", "{}"]', 'so', 5, 0, now())""",
        box,
    )
    await connection.close()


def test_database_of_the_version_before(database: str, channel: str):
    """Its messages are handled, and those of a process that died with them; its dead are listed."""

    async def main() -> None:
        await fill(database, channel)
        store = standalone_store(Endpoint(dsn=database), channel)

        assert 2 == await backlog(store, "box")
        free = await fetch(store)
        assert 1 == await store.requeue_held_by(["gone"])
        held = await fetch(store)
        assert [["free"], ["held"]] == [texts(free), texts(held)]
        assert ["so"] == [one.reason for one in await store.dead_letters()]

        await store.settle([Settlement(one) for one in free + held])
        assert 0 == await backlog(store, "box")
        names = {row["name"] for row in await store._writer.call(NAMES)}
        assert set() == names & OLD
        left = [
            name
            for name in names
            if name.startswith(("mail_", "wire_", "take_", "held_h", "dead_m"))
        ]
        assert [] == left
        await store.close()

    run(main())
