"""Replies straight from a connection's socket."""

import asyncio
import types

import hiredis
import pytest
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from pbus.bus.redis.protocol import ReplyProtocol, pieces_of
from support.waiting import run

MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"


class FakeTransport:
    """Has a protocol, and notes what that was told."""

    def __init__(self):
        self.told = []
        self.protocol = types.SimpleNamespace(
            pause_writing=lambda: self.told.append("pause"),
            resume_writing=lambda: self.told.append("resume"),
            connection_lost=lambda error: self.told.append(("lost", error)),
        )

    def get_protocol(self):
        return self.protocol

    def set_protocol(self, protocol):
        self.protocol = protocol


def connection(transport):
    """What a feed needs of a connection."""
    writer = types.SimpleNamespace(transport=transport)
    return types.SimpleNamespace(_writer=writer, _parser=DefaultParser(socket_read_size=1))


def test_replies_come_whole():
    """Each reply is handed out once it is complete, however it was cut on the way."""

    async def main():
        replies = []
        transport = FakeTransport()
        feed = ReplyProtocol(connection(transport), replies.append)
        assert transport.protocol is feed
        for at in range(len(MESSAGE)):
            feed.data_received(MESSAGE[at : at + 1])
        feed.data_received(MESSAGE * 2 + b"+PO")
        feed.data_received(b"NG\r\n")
        assert [*[[b"message", b"c", b"hello"]] * 3, b"PONG"] == replies

    run(main())


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"-ERR no\r\n", ResponseError),
        (b"-NOPERM not you\r\n", NoPermissionError),
        (b"no such reply\r\n", RedisConnectionError),
    ],
)
def test_errors_end_the_feed(line, kind):
    """An error that the callback raises, or bytes that are no reply, are why nothing more comes."""

    async def main():
        replies = []

        def take(reply):
            replies.append(reply)
            if isinstance(reply, Exception):
                raise reply

        feed = ReplyProtocol(connection(FakeTransport()), take)
        feed.data_received(line)
        feed.data_received(MESSAGE)
        assert kind is type(await feed.ended())
        assert [b"message", b"c", b"hello"] not in replies

    run(main())


def test_closed_connection_ends_feed():
    """Who writes is told of pauses and of the end, who listens of the end."""

    async def main():
        transport = FakeTransport()
        feed = ReplyProtocol(connection(transport), lambda reply: None)
        feed.pause_writing()
        feed.resume_writing()
        feed.connection_lost(None)
        assert isinstance(await feed.ended(), RedisConnectionError)
        assert ["pause", "resume", ("lost", None)] == transport.told

    run(main())


def test_lost_connection_says_why():
    """The socket's own error is the reason."""

    async def main():
        feed = ReplyProtocol(connection(FakeTransport()), lambda reply: None)
        feed.connection_lost(OSError("cut"))
        assert "cut" == str(await asyncio.wait_for(feed.ended(), 5))

    run(main())


KIB = 1024
COMMANDS = {
    "few words": ("PUBLISH", "channel", b"x" * 300 * KIB),
    "small words": ("EVALSHA", *range(50)),
    "many large ones": ("EVALSHA", 1, *(bytes([65 + at % 26]) * 13 * KIB for at in range(40))),
    "one that fills a piece": ("EVALSHA", *(["x"] * 20), b"y" * 64 * KIB, "z"),
    "one above all": ("EVALSHA", *(["x"] * 20), b"y" * 65 * KIB, "z"),
    "a large one at the end": ("EVALSHA", *(["x"] * 20), b"a" * 40 * KIB, b"b" * 64 * KIB),
    "text of two bytes a character": ("EVALSHA", *(["é" * 30 * KIB] * 20)),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_pieces_are_the_command(command):
    """Word for word, however large it is."""
    assert hiredis.pack_command(command) == b"".join(pieces_of(command))


@pytest.mark.parametrize(
    ("name", "pieces"),
    [("few words", 1), ("small words", 1), ("many large ones", 10), ("one above all", 1)],
)
def test_only_commands_of_many_large_words_are_cut(name, pieces):
    """No piece is a block that an allocator returns each time."""
    found = pieces_of(COMMANDS[name])
    assert pieces == len(found)
    assert pieces == 1 or max(map(len, found)) < 65 * KIB
