"""Where a client connects to, and what it is before and after that."""

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest

import pbus.client
from pbus.bus.memory import AsyncQueueBus
from pbus.client import Client, SyncClient
from pbus.client.attachment import at_url, from_environment
from pbus.client.sync.loop_thread import LoopThread
from pbus.errors import (
    BusUrlError,
    CallTimeoutError,
    ClientClosedError,
    MessageInputError,
    NothingRunningError,
)
from pbus.messages import BusWorkerStateMessage
from support.waiting import PATIENCE_S, run, until

URL = "redis://user:secret@broker:6379"


def test_worker_means_its_own_bus(monkeypatch: pytest.MonkeyPatch):
    """Without arguments it is the bus that `pbus up` gave to the program, its key included."""
    environ = {
        "PBUS_URL": URL, "PBUS_CHANNEL": "pbus:shop", "PBUS_PROJECT": "shop", "PBUS_KEY": "k" * 32,
        "PBUS_ENCODING": "msgpack",
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    client = pbus.client.connect()

    assert client.attachment is not None
    assert ("shop", "pbus:shop") == (client.project, client.bus.channel)
    assert ("k" * 32, "msgpack") == (client.attachment.bus.key, client.attachment.bus.encoding)
    assert None is from_environment({"PBUS_URL": URL})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"project": "shop", "url": URL}, TypeError),
        ({"file": "topology.yaml", "url": URL}, TypeError),
        ({"project": "shop", "channel": "c"}, TypeError),
        ({"url": "ftp://x"}, BusUrlError),
        ({"project": "no-such-project"}, NothingRunningError),
    ],
    ids=str,
)
def test_wrong_addresses_are_refused(
    arguments: dict[str, Any], error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path
):
    """Before anything is connected."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(error):
        pbus.client.connect(**arguments)


def test_passwords_are_not_shown():
    """Neither the broker's nor the key are in the text of an address."""
    attachment = at_url(URL, channel="c", key="a-key-of-32-characters-and-more-")

    assert "redis://user:***@broker:6379" == attachment.shown_url
    assert "secret" not in repr(attachment)
    assert "a-key-of" not in repr(attachment)


def test_client_is_used_within_its_block():
    """Before and after it says so, and it is opened once."""

    async def main():
        client = Client(AsyncQueueBus())
        with pytest.raises(ClientClosedError, match="not open yet"):
            await client.workers()
        async with client:
            assert [] == await client.workers()
            with pytest.raises(ClientClosedError, match="open already"):
                await client.__aenter__()
        for call in (lambda: client.job("a"), lambda: client.control, client.tail, client.events):
            with pytest.raises(ClientClosedError, match="closed"):
                call()
        await client.close()

    run(main())


def test_own_bus_goes_on():
    """A bus that ran before the client runs after it."""

    async def main():
        async with AsyncQueueBus() as bus:
            async with Client(bus) as client:
                await client.send_bus_message(state_change())
            assert bus.is_running

    run(main())


def state_change(state: str = "ready") -> BusWorkerStateMessage:
    """A change that a supervisor publishes."""
    return BusWorkerStateMessage(
        source="supervisor-1", target="~states", project="p", worker="a", state=state
    )


def test_closing_ends_those_who_follow():
    """Tasks that wait for messages or changes end with the client, and no sooner."""
    heard: list[Any] = []

    async def follow(tail: Any) -> list[str]:
        seen = []
        async for one in tail:
            seen.append(getattr(one, "state", None) or one.type)
            heard.append(one)
        return seen

    async def main():
        async with Client(AsyncQueueBus()) as client:
            tail, events = client.tail(), client.events()
            async with tail, events:
                pass  # closed before they were read: over at once
            assert [[], []] == [await follow(tail), await follow(events)]
            tail, events = client.tail(), client.events()
            await tail.__aenter__()
            await events.__aenter__()
            following = [asyncio.ensure_future(follow(one)) for one in (tail, events)]
            await client.send_bus_message(state_change())
            await until(lambda: len(heard) == 2)
        return await asyncio.gather(*following)

    seen, states = run(main())
    assert ["BusWorkerStateMessage"] == seen
    assert ["ready"] == states


def test_tail_goes_on_after_a_deadline():
    """A wait that was given up takes no message with it."""

    async def main():
        async with Client(AsyncQueueBus()) as client, client.tail(type="WorkerState") as tail:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(tail)
            await client.send_bus_message(state_change())
            return await anext(tail)

    assert {"project": "p", "worker": "a", "state": "ready"}.items() <= run(main()).data.items()


def test_wrong_fields_are_not_sent():
    """The field is named before a worker is looked for."""

    async def main():
        async with Client(AsyncQueueBus(), find_timeout=60) as client:
            with pytest.raises(MessageInputError, match="'frame'") as caught:
                await client.send("a", "BusFrameMessage", {"fram": {}})
            assert ("BusFrameMessage", "fram") == (caught.value.type_name, caught.value.field)

    run(main())


def test_call_ends_at_its_deadline():
    """What it was for is cancelled; the loop serves further calls."""
    ended = threading.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def soon() -> int:
        return 42

    async def inside(thread: LoopThread) -> None:
        thread.call("inside", soon, 5)

    thread = LoopThread()
    try:
        with pytest.raises(CallTimeoutError, match=r"never\(\) had no result within 0.05 s"):
            thread.call("never", never, 0.05)
        assert ended.is_set()
        assert 42 == thread.call("soon", soon, 5)
        with pytest.raises(ClientClosedError):  # it would wait for itself
            thread.call("outer", lambda: inside(thread), 5)
    finally:
        thread.close()
    with pytest.raises(ClientClosedError):
        thread.call("late", soon, 5)


def test_closing_ends_calls_of_other_threads():
    """They do not wait for their deadlines."""
    errors: list[Exception] = []
    called = threading.Event()

    async def never() -> None:
        called.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            thread.call("never", never, 600)
        except ClientClosedError as error:
            errors.append(error)

    thread = LoopThread()
    caller = threading.Thread(target=call)
    caller.start()
    assert called.wait(PATIENCE_S)
    thread.close()
    caller.join(PATIENCE_S)
    assert ["the client is closed"] == [error.message for error in errors]


def test_sync_client_cleans_up():
    """Its thread ends with its block, also where it could not connect."""
    with SyncClient(lambda: Client(AsyncQueueBus())) as client:
        assert ([], []) == (client.workers(), client.open_jobs().jobs)
        with pytest.raises(ValueError, match="timeout in seconds"):
            client.job("a", timeout=None)
        client.close()
    with pytest.raises(ClientClosedError):
        client.workers()

    def unreachable() -> Client:
        raise NothingRunningError("is there")

    with pytest.raises(NothingRunningError):
        SyncClient(unreachable)
    client = SyncClient(lambda: Client(AsyncQueueBus()))
    del client  # as a notebook does that makes another
    assert [] == [one for one in threading.enumerate() if one.name == "pbus client"]


def test_importing_loads_little():
    """A program that may never ask pays nothing: parts load when they are used."""
    code = (
        "import sys, pbus, pbus.client; print(sorted(sys.modules.keys() & {'msgspec', 'asyncio'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert "[]\n" == done.stdout
