"""Replies straight from the socket: no stream and no task stand between it and the mailboxes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

_TOGETHER_BYTES = 64 * 1024  # written in one call; above, the server works while we copy the rest
_FEW_WORDS = 16
_MORE: Final = object()  # a reply is not complete yet


def pieces_of(command: Sequence[Any]) -> list[bytes | memoryview]:
    """Pack a command; one of many words piece by piece, unless a single word is large by itself.

    A large block goes back to the system each time, and to fill a new one takes longer than the copy.
    """
    if len(command) > _FEW_WORDS:
        sizes = [len(one) if isinstance(one, (bytes, str)) else 0 for one in command]
        if sum(sizes) > _TOGETHER_BYTES >= max(sizes):
            return _packed_apart(command, sizes)
    return [hiredis.pack_command(command)]  # type: ignore[arg-type]  # of any length


def _packed_apart(command: Sequence[Any], sizes: Sequence[int]) -> list[bytes | memoryview]:
    pieces: list[bytes | memoryview] = [b"*%d\r\n" % len(command)]
    first, size = 0, 0
    for at, more in enumerate((*sizes, _TOGETHER_BYTES)):
        if size + more > _TOGETHER_BYTES and at > first:
            packed = hiredis.pack_command(tuple(command[first:at]))
            pieces.append(memoryview(packed)[packed.index(b"\n") + 1 :])
            first, size = at, 0
        size += more
    return [b"".join(pieces[:2]), *pieces[2:]]


class ReplyProtocol(asyncio.Protocol):
    """Reads a connection that redis-py made, from now on; redis-py goes on writing.

    Args:
        connection: Connected, and no reply of it under way.
        on_reply: Called with each reply; what it raises ends the feed.

    Attributes:
        heard: Bytes received.
    """

    def __init__(self, connection: AbstractConnection, on_reply: Callable[[Any], None]) -> None:
        self.heard = 0
        self._connection = connection
        self._on_reply = on_reply
        # redis-py has no other way to its transport, nor to the classes of its errors.
        writer, error_of = connection._writer, connection._parser.parse_error  # noqa: SLF001
        if writer is None:
            raise RedisConnectionError("not connected")
        self._parser = hiredis.Reader(replyError=error_of, notEnoughData=_MORE)
        self._ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._transport = writer.transport
        self._writing: Any = self._transport.get_protocol()  # holds writers back at a full socket
        self._transport.set_protocol(self)

    async def ended(self) -> Exception:
        """Wait until nothing more comes; returns why."""
        return await self._ended

    def when_ended(self, callback: Callable[["ReplyProtocol", Exception], None]) -> None:
        """Call back soon after the end, with why."""
        self._ended.add_done_callback(lambda ended: callback(self, ended.result()))

    def post(self, commands: Sequence[Sequence[Any]]) -> bool:
        """Write commands here and now; returns False where the connection is closing."""
        if self._transport.is_closing():
            return False
        packed = [piece for command in commands for piece in pieces_of(command)]
        if len(packed) > 1 and sum(map(len, packed)) <= _TOGETHER_BYTES:
            packed = [b"".join(packed)]
        for piece in packed:
            self._transport.write(piece)
        return True

    @property
    def unsent(self) -> int:
        """Bytes written that the socket has not taken yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close the connection whatever the other side does; what is not sent yet is dropped."""
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001 - disconnect() waits

    def data_received(self, data: bytes) -> None:
        """Hand out what is complete."""
        if self._ended.done():
            return
        self.heard += len(data)
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not _MORE:
                self._on_reply(reply)
        except hiredis.ProtocolError as error:
            self._end(RedisConnectionError(str(error)))
        except Exception as error:  # noqa: BLE001 - raised where the end is waited for
            self._end(error)

    def pause_writing(self) -> None:
        """The socket is full."""
        self._writing.pause_writing()

    def resume_writing(self) -> None:
        """It is no longer."""
        self._writing.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self._writing.connection_lost(error)
        self._end(error or RedisConnectionError("the server closed the connection"))

    def _end(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_result(error)
