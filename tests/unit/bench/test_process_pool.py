"""The processes of a measurement: their bus, and their end."""

import asyncio
import io

import pytest

from pbus.bench.processes import process_pool
from pbus.bench.processes.process_pool import BenchProcess, BenchProcesses
from pbus.settings import BusSettings


class Slow:
    """A process that outlives its time, and has ended when it is to be killed."""

    returncode = None
    stdin = None

    def __init__(self, *, is_gone):
        self.is_gone = is_gone
        self.is_killed = False
        self.ended = asyncio.Event()

    async def wait(self):
        await self.ended.wait()

    def kill(self):
        self.ended.set()
        if self.is_gone:
            raise ProcessLookupError
        self.is_killed = True


@pytest.mark.parametrize("is_gone", [True, False])
def test_process_that_ends_late_is_no_error(monkeypatch, is_gone):
    """It is killed, unless it has ended just then; either way the measurement goes on."""
    monkeypatch.setattr(process_pool, "_END_S", 0.0)

    async def main():
        process, stderr = Slow(is_gone=is_gone), io.BytesIO()
        await BenchProcess("slow", process, stderr).stop()
        assert is_gone is not process.is_killed
        assert stderr.closed

    asyncio.run(main())


@pytest.mark.parametrize("direct", [True, False, None])
def test_buses_use_direct_sockets_as_told(direct):
    """Where nothing is said they are as any bus is by default."""
    pool = BenchProcesses("redis://nowhere", direct=direct)

    expected = BusSettings().direct if direct is None else direct
    assert expected is pool.new_bus().direct
    assert 1 == len(pool.channels)
