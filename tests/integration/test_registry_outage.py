"""The registry when the broker is killed, and comes back with nothing."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

from pbus.bus.connect import connect
from pbus.leases import HEARTBEAT_S, LEASE_S
from pbus.runner import WorkerRunner
from support.recorder import Recorder
from support.waiting import PATIENCE_S, run, until


@asynccontextmanager
async def at_work(url, channel, worker):
    """A runner in a process of its own, as far as the broker can tell."""
    runner = WorkerRunner(bus=connect(url, channel=channel))
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        await until(lambda: worker.name in runner.registry)
        yield runner
    finally:
        await runner.cancel()
        async with asyncio.timeout(20):
            await running


def test_broker_restart_loses_none(own_valkey, channel):
    """After kill -9 of the broker and a restart without data all workers are known again."""

    async def main():
        lost = []

        async def note(data):
            lost.append(data)

        async with AsyncExitStack() as stack:
            runners = [
                await stack.enter_async_context(at_work(own_valkey.url, channel, Recorder(name)))
                for name in ("a", "b")
            ]
            for runner, other in zip(runners, ("b", "a"), strict=True):
                await runner.registry.wait_ready(other, PATIENCE_S)
                runner.registry.watch_lost(None, note)
            own_valkey.kill()
            await asyncio.to_thread(own_valkey.start)
            await asyncio.sleep(LEASE_S + 2 * HEARTBEAT_S)  # all that could be lost would be
            leases = await runners[0].bus.leases.leases()
            assert [("a", "ready"), ("b", "ready")] == [
                (lease.name, lease.state) for lease in leases
            ]
            assert ["b"] == runners[0].registry.remote_workers
            assert [] == lost

    run(main(), timeout=50.0)
