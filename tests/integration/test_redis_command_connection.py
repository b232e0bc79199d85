"""A link for commands: what is posted without waiting is answered like the rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import NoScriptError

from pbus.bus.redis import connections
from pbus.bus.redis.connections import CommandConnection
from pbus.bus.redis.server.endpoint import TROUBLE, Endpoint
from support.valkey import Valkey
from support.waiting import run, until

pytestmark = pytest.mark.redis


@asynccontextmanager
async def linked(valkey: Valkey) -> AsyncIterator[CommandConnection]:
    link = CommandConnection(Endpoint(url=valkey.url, redis=None), "test")
    await link.connect()
    try:
        yield link
    finally:
        await link.close()


def echo(text: bytes) -> tuple[bytes, bytes]:
    """A command that is answered with this."""
    return b"ECHO", text


class Ends:
    """What posts ended with."""

    def __init__(self) -> None:
        self.all: list[list[bytes] | Exception] = []

    def note(self, outcome: list[bytes] | Exception) -> None:
        self.all.append(outcome)

    async def first(self, count: int) -> list[list[bytes] | Exception]:
        """Wait for so many."""
        await until(lambda: len(self.all) >= count)
        return self.all


def test_posted_is_answered(valkey: Valkey):
    """Replies to what was posted, in order."""

    async def main():
        async with linked(valkey) as link:
            ends = Ends()
            assert link.post([echo(b"1"), echo(b"2")], ends.note)
            assert [[b"1", b"2"]] == await ends.first(1)
            assert [b"3"] == await link.request([echo(b"3")])
            assert link.post([echo(b"4")], ends.note)
            assert [[b"1", b"2"], [b"4"]] == await ends.first(2)

    run(main())


def test_replies_are_not_mixed_up(valkey: Valkey):
    """Who comes before the post is answered gets its own replies."""

    async def main():
        async with linked(valkey) as link:
            ends = Ends()
            assert link.post([echo(b"1"), echo(b"2")], ends.note)
            assert not link.post([echo(b"never")], ends.note)
            assert [b"3"] == await link.request([echo(b"3")])
            assert [[b"1", b"2"]] == ends.all

    run(main())


def test_busy_link_takes_no_post(valkey: Valkey):
    """While a caller waits for replies nothing is written beside it."""

    async def main():
        async with linked(valkey) as link:
            asking = asyncio.create_task(link.request([echo(b"1")]))
            await asyncio.sleep(0)  # it has the link now
            ends = Ends()
            assert not link.post([echo(b"2")], ends.note)
            assert [b"1"] == await asking
            assert link.post([echo(b"2")], ends.note)
            assert [[b"2"]] == await ends.first(1)

    run(main())


def test_refusals_are_replies(valkey: Valkey):
    """An error reply stands in its place, as the error it is, and the link goes on."""

    async def main():
        async with linked(valkey) as link:
            first, refused, last = await link.request([
                echo(b"1"),
                (b"EVALSHA", b"0", 0),
                echo(b"2"),
            ])
            assert (b"1", NoScriptError, b"2") == (first, type(refused), last)
            assert [b"3"] == await link.request([echo(b"3")])

    run(main())


def test_lost_post_is_told(valkey: Valkey):
    """After a lost connection later replies are not mistaken for those to earlier commands."""

    async def main():
        async with linked(valkey) as link:
            ends = Ends()
            assert link.post([echo(b"1")], ends.note)
            await link.close()
            assert [ConnectionError] == [type(end) for end in ends.all]
            assert not link.post([echo(b"3")], ends.note)  # not connected
            assert [b"4"] == await link.request([echo(b"4")])
            assert 1 == len(ends.all)

    run(main())


def test_silent_server_is_left(valkey: Valkey, monkeypatch):
    """Who waits for a server that says nothing learns it, and the next connection is new."""
    monkeypatch.setattr(connections, "WRITE_TIMEOUT_S", 0.2)

    async def main():
        async with linked(valkey) as link:
            ends = Ends()
            assert link.post([(b"BLPOP", b"never", 0)], ends.note)
            with pytest.raises(TimeoutError):
                await link.request([echo(b"1")])
            assert [TimeoutError] == [type(end) for end in ends.all]
            assert not link.is_up
            assert [b"2"] == await link.request([echo(b"2")])

    run(main())


def test_death_while_idle_is_told_once(valkey: Valkey):
    """The next who asks learns that the connection had ended, since others may have as well."""

    async def main():
        async with linked(valkey) as link, linked(valkey) as other:
            (number,) = await link.request([(b"CLIENT", b"ID")])
            await other.request([(b"CLIENT", b"KILL", b"ID", number)])
            await until(lambda: not link.is_up)
            assert not link.post([echo(b"1")], Ends().note)
            with pytest.raises(TROUBLE):
                await link.request([echo(b"1")])
            assert [b"1"] == await link.request([echo(b"1")])

    run(main())
