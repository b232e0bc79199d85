"""Messages of many megabytes: they arrive, or send() says why not; later ones arrive in any case."""

import asyncio

import pytest

from pbus.bus import connect
from pbus.errors import MessageTooLargeError
from pbus.messages import BusDataMessage, BusMessagesLostMessage
from support.listeners import Listener
from support.proxy import Proxy
from support.valkey import Valkey
from support.waiting import run, until

pytestmark = pytest.mark.redis

MB = 1024 * 1024
ONCE, KEPT = "at-most-once", "at-least-once"


class Heap(BusDataMessage):
    """So many bytes."""

    number: int
    content: bytes = b""


def heap(number: int, megabytes: int = 0, target: str | None = "w") -> Heap:
    """A message of that size."""
    return Heap(source="a", target=target, number=number, content=bytes(megabytes * MB))


def numbers(listener: Listener) -> list[int]:
    """What came, whole."""
    return [one.number for one in listener.messages if isinstance(one, Heap)]


def buses(url: str, channel: str, delivery: str):
    """A sender and a receiver that take messages of up to 128 MiB."""
    options = {"channel": channel, "delivery": delivery, "encoding": "msgpack", "send_timeout": 30}
    return (connect(url, max_message_bytes=128 * MB, **options) for _ in range(2))


@pytest.mark.parametrize("delivery", [ONCE, KEPT])
def test_large_messages(own_valkey: Valkey, channel: str, delivery: str):
    """24 MiB pass, to one and to all; more where the server's limit for subscribers admits it."""

    async def main() -> None:
        here, there = buses(own_valkey.url, channel, delivery)
        listener, other = Listener("w"), Listener("x")
        await there.subscribe(listener)
        await here.subscribe(other)
        async with here, there:
            await here.send(heap(1, 24))
            await here.send(heap(2, 24, None))
            if delivery == ONCE:
                for attempt in (heap(3, 40), heap(3, 40, None)):
                    with pytest.raises(MessageTooLargeError, match="client-output-buffer-limit"):
                        await here.send(attempt)
                with pytest.raises(MessageTooLargeError, match="client-output-buffer-limit"):
                    await here.send_raw("Heap", "w", {"content": "A" * 40 * MB}, source="a")
                limit = "pubsub 128mb 64mb 60"
                own_valkey.command("CONFIG", "SET", "client-output-buffer-limit", limit)
            await here.send(heap(4, 80))
            await here.send(heap(5, 0, None))
            await listener.heard(4)
            await other.heard(2)

        assert ([1, 2, 4, 5], [2, 5]) == (numbers(listener), numbers(other))

    run(main())


def test_lost_large_message_frees_its_sender(own_valkey: Valkey, channel: str):
    """A receiver that is cut off with megabytes under way counts the loss; later ones arrive."""

    async def main() -> None:
        listener = Listener("w")
        async with Proxy(str(own_valkey.socket)) as proxy:
            here, _ = buses(own_valkey.url, channel, ONCE)
            there, _ = buses(proxy.url, channel, ONCE)
            await there.subscribe(listener)
            async with here, there:
                await here.send(heap(1, 1))
                await until(lambda: here._send_buffers["d"]._streams["w"].has_credit(40 * MB))
                here._carried_bytes = 128 * MB  # as if the server had not said what it does
                proxy.freeze()
                await here.send(heap(2, 40))
                await until(
                    lambda: own_valkey.command("CLIENT", "LIST", "TYPE", "pubsub").count(b"id=") < 4
                )
                here._send_buffers[
                    "d"
                ].send_watermarks()  # by which it would learn of the loss is lost, too
                await until(lambda: not here._send_buffers["d"].queue._ready)
                proxy.restore()
                await until(lambda: not there.is_connected)
                await until(lambda: there.is_connected)
                await here.send(heap(3))  # waits for credit until the loss is known
                await until(lambda: numbers(listener)[-1] == 3)

        lost = [one.count for one in listener.messages if isinstance(one, BusMessagesLostMessage)]
        assert ([1, 3], [1], 1) == (numbers(listener), lost, there.counters.lost)

    run(main())


def test_large_messages_in_memory():
    """Within a process they are handed over as they are."""

    async def main() -> None:
        listener = Listener("w")
        async with connect("memory://") as bus:
            await bus.subscribe(listener)
            for number, megabytes in enumerate((8, 80, 0)):
                await bus.send(heap(number, megabytes))
            await listener.heard(3)

        assert [0, 1, 2] == numbers(listener)

    asyncio.run(main())
