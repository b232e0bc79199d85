"""A link for commands: what is posted without waiting is answered like the rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pbus.bus.redis.endpoint import Endpoint
from pbus.bus.redis.links import RequestLink
from support.valkey import Valkey
from support.waiting import run

pytestmark = pytest.mark.redis


@asynccontextmanager
async def linked(valkey: Valkey) -> AsyncIterator[RequestLink]:
    link = RequestLink(Endpoint(url=valkey.url, redis=None), "test")
    await link.connect()
    try:
        yield link
    finally:
        await link.close()


def echo(text: bytes) -> tuple[bytes, bytes]:
    """A command that is answered with this."""
    return b"ECHO", text


def test_posted_is_answered(valkey: Valkey):
    """Replies to what was posted, in order."""

    async def main():
        async with linked(valkey) as link:
            assert link.post([echo(b"1"), echo(b"2")])
            assert [b"1", b"2"] == await link.collect()
            assert [b"3"] == await link.request([echo(b"3")])
            assert link.post([echo(b"4")])
            assert [b"4"] == await link.collect()

    run(main())


def test_replies_are_not_mixed_up(valkey: Valkey):
    """Who comes between posting and collecting gets its own replies."""

    async def main():
        async with linked(valkey) as link:
            assert link.post([echo(b"1"), echo(b"2")])
            assert [b"3"] == await link.request([echo(b"3")])
            assert not link.post([echo(b"never")])  # before that was collected
            assert [b"1", b"2"] == await link.collect()
            assert link.post([echo(b"4")])
            assert [b"4"] == await link.collect()

    run(main())


def test_busy_link_takes_no_post(valkey: Valkey):
    """While somebody waits for replies nothing is written beside him."""

    async def main():
        async with linked(valkey) as link:
            asking = asyncio.create_task(link.request([echo(b"1")]))
            await asyncio.sleep(0)  # it has the link now
            assert not link.post([echo(b"2")])
            assert [b"1"] == await asking

    run(main())


def test_lost_post_is_told(valkey: Valkey):
    """After a lost connection nobody takes later replies for those to what was posted."""

    async def main():
        async with linked(valkey) as link:
            assert link.post([echo(b"1")])
            await link.close()
            assert [b"2"] == await link.request([echo(b"2")])
            with pytest.raises(ConnectionError):
                await link.collect()
            assert not link.post([echo(b"3")])  # not connected
            assert [b"4"] == await link.request([echo(b"4")])

    run(main())
