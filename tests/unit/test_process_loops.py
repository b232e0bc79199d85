"""The loop a process runs on is the one that the topology names."""

import asyncio
import importlib.util

import pytest

from pbus.errors import LoopMissingError
from pbus.process.loops import require, run_on


async def kind_of_loop() -> str:
    """The module of the loop that runs this."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_runs_on_the_loop_named(loop):
    """Either loop runs a coroutine to its result."""
    assert loop == run_on(loop, kind_of_loop())


def test_missing_loop_named(monkeypatch):
    """Where the package is not installed, the error names the extra that brings it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(LoopMissingError, match=r"pbus-orchestrator\[uvloop\]"):
        require("uvloop")
    with pytest.raises(LoopMissingError):
        run_on("uvloop", kind_of_loop())
    require("asyncio")
