"""The loop a process runs on is the one that the topology names."""

import asyncio
import importlib.util
import socket
import threading

import pytest

from pbus.errors import LoopMissingError
from pbus.process.system.event_loop import require, run_on, run_patiently


async def kind_of_loop() -> str:
    """The module of the loop that runs this."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_runs_on_the_loop_named(loop):
    """Either loop runs a coroutine to its result."""
    assert loop == run_on(loop, kind_of_loop())


def test_silent_name_server_delays_no_end(monkeypatch):
    """A process ends, and says why, while a name is still being resolved."""
    answers = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answers.wait())

    async def main() -> None:
        async with asyncio.timeout(0):
            await asyncio.open_connection("broker.invalid", 6379)

    with pytest.raises(TimeoutError):
        run_patiently(main())  # would wait for an answer that comes only after it
    answers.set()


def test_names_are_resolved():
    """What the system says of a name is what a connection gets, errors included."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert socket.getaddrinfo("localhost", 80) == await loop.getaddrinfo("localhost", 80)
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("", None)

    run_patiently(main())


def test_missing_loop_named(monkeypatch):
    """Where the package is not installed, the error names the extra that brings it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(LoopMissingError, match=r"pbus-orchestrator\[uvloop\]"):
        require("uvloop")
    with pytest.raises(LoopMissingError):
        run_on("uvloop", kind_of_loop())
    require("asyncio")
