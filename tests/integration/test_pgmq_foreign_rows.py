"""Rows that pbus did not write, in the queues of its workers."""

import asyncio
import json
import logging

import pytest

from pbus.bus import connect
from pbus.messages import BusDataMessage
from support.listeners import Listener
from support.postgres import query
from support.waiting import PATIENCE_S, run

pytestmark = pytest.mark.pgmq

# The message and the headers of a row, as SQL has them.
FOREIGN = {
    "an object": ("""'{"a": 1}'""", "NULL"),
    "nothing": ("NULL", "NULL"),
    "null": ("'null'", "NULL"),
    "a number": ("'5'", """'{"n": 1}'"""),
    "an empty array": ("'[]'", """'{"n": 0}'"""),
    "an array of objects": ("""'[{"a": 1}]'""", """'{"n": 1}'"""),
    "ids that are none": ("""'[[1, "body"]]'""", """'{"n": 1}'"""),
    "a body that is none": ("""'[["id", {"x": "y"}]]'""", """'{"n": 1}'"""),
    "a body of nothing": ("""'[["id", null]]'""", """'{"n": 1}'"""),
    "three in a pair": ("""'[["id", "body", "more"]]'""", """'{"n": 1}'"""),
    "no headers": ("""'[["id", "{}"]]'""", "NULL"),
    "too many": ("""'[["id", "{}"]]'""", """'{"n": 7}'"""),
    "headers of text": ("""'[["id", "{}"]]'""", """'{"n": "x"}'"""),
    "headers of an array": ("""'[["id", "{}"]]'""", "'[1, 2]'"),
    "headers of a number": ("""'[["id", "{}"]]'""", "'7'"),
    "a number out of range": ("""'{"n": 1}'""", """'{"n": 1e300, "t": 1e300, "b": 1e300}'"""),
    "too many attempts": ("""'[["id", "{}"]]'""", """'{"n": 1, "a": 99999999999}'"""),
    "less than no crashes": ("""'[["id", "{}"]]'""", """'{"n": 1, "c": -1}'"""),
    "strange attempts": ("""'[["id", "{}"]]'""", """'{"n": 1, "a": "x", "c": [], "s": 3}'"""),
    "too long for one answer": (
        """jsonb_build_object('a', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200000) n))""",
        "NULL",
    ),
}
# Entries as pbus writes them, of what is no message.
NO_MESSAGES = {
    "no JSON": """'[["id", "hello"]]'""",
    "no type": """'[["id", "{\\"source\\": \\"x\\"}"]]'""",
    "an unknown type": """'[["id", "{\\"type\\": \\"Nope\\", \\"source\\": \\"x\\", \\"target\\": \\"w\\"}"]]'""",
    "wrong fields": """'[["id", "{\\"type\\": \\"Bead\\", \\"source\\": \\"x\\", \\"number\\": \\"y\\"}"]]'""",
}


class Bead(BusDataMessage):
    """A numbered message."""

    number: int


async def queue_of(url, channel, name="w") -> str:
    """The queue of a queue's data lane."""
    sql = "SELECT base FROM pbus.queue WHERE channel = $1 AND name = $2"
    (row,) = await query(url, sql, channel, name)
    return row["base"] + "_d"


def test_foreign_rows_are_dead_letters(shared_database, channel, caplog):
    """A row of any kind becomes a dead letter with a reason; what is before and after it is handled."""

    async def main():
        listener, number = Listener("w"), 0
        async with connect(shared_database, channel=channel) as bus:
            await bus.queues.open("w", durable=True)
            queue = await queue_of(shared_database, channel)
            for message, headers in (
                *FOREIGN.values(),
                *((m, """'{"n": 1}'""") for m in NO_MESSAGES.values()),
            ):
                await bus.send(Bead(source="a", target="w", number=number))
                number += 1
                sql = f"SELECT pgmq.send($1, ({message})::jsonb, ({headers})::jsonb)"
                await query(shared_database, sql, queue)
            await bus.send(Bead(source="a", target="w", number=number))
            await bus.subscribe(listener)
            await listener.heard(number + 1)
            assert list(range(number + 1)) == [one.number for one in listener.messages]
            async with asyncio.timeout(PATIENCE_S):
                while len(dead := await bus.queues.dead_letters()) < number:
                    await asyncio.sleep(0.01)
            named = [one for one in dead if one.reason.startswith("not written by pbus: ")]
            assert len(FOREIGN) == len(named)
            assert {"a": 1} == json.loads(named[0].body)
            async with asyncio.timeout(PATIENCE_S):
                while (report := (await bus.queues.stats())[0]).backlog:
                    await asyncio.sleep(0.01)
            assert (number, 0) == (report.dead, report.in_flight)

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "were not written by pbus" in caplog.text
    assert "a bug in pbus" not in caplog.text


def test_foreign_dead_letters_are_shown(shared_database, channel):
    """What others wrote among the dead letters is listed, and can be dropped."""

    async def main():
        async with connect(shared_database, channel=channel) as bus:
            await bus.queues.open("w", durable=True)
            insert = """INSERT INTO pbus.dead_letter (queue_id, lane, message, reason, attempt, crashes, dead_since)
              SELECT id, 'd', $2::text::jsonb, 'x', -1, 1, now() + interval '9 y' FROM pbus.queue WHERE channel = $1"""
            messages = ['"text"', "null", "[]", "[1, 2]", '["id", {"b": "?"}]', "{}"]
            for message in messages:
                await query(shared_database, insert, channel, message)
            dead = await bus.queues.dead_letters()
            assert messages == [one.body.decode() for one in dead]
            assert {"not written by pbus"} == {one.reason for one in dead}
            assert len(messages) == await bus.queues.drop_dead([one.key for one in dead])

    run(main())
