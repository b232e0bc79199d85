"""What `send()` returned for survives kill -9 of the embedded Valkey, however slow the disk is.

`PBUS_KILL_STORMS=50` does it so often.
"""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from pbus import connect
from pbus.errors import BusError
from pbus.messages import BusDataMessage
from pbus.process.services import embedded_server
from pbus.process.services.embedded_server import server_environ
from pbus.process.services.guard_client import GuardClient
from pbus.process.services.valkey import EmbeddedValkey
from support.guard_fixture_program import make_project
from support.slow_disk import build

pytestmark = pytest.mark.redis

STORMS = int(os.environ.get("PBUS_KILL_STORMS", "1"))
SYNC_S = 1.2
SENDERS = 20


class Drop(BusDataMessage):
    """One of many."""

    number: int


@pytest.mark.timeout(60 + 10 * STORMS)
def test_confirmed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channel: str) -> None:
    """No message that was confirmed is missing after any kill."""
    library = build(tmp_path, SYNC_S)
    monkeypatch.setattr(
        embedded_server,
        "server_environ",
        lambda token: server_environ(token) | {"LD_PRELOAD": str(library)},
    )
    project = make_project(tmp_path, monkeypatch)

    async def storm(valkey: EmbeddedValkey) -> tuple[int, int]:
        url = await valkey.start()
        bus = connect(url, channel=channel, delivery="at-least-once", send_timeout=1.0)
        confirmed = 0
        async with bus:
            assert bus.queues is not None
            await bus.queues.purge("w", remove=True)
            await bus.queues.open("w", durable=True, max_backlog=10_000_000)

            async def send() -> None:
                nonlocal confirmed
                while True:
                    await bus.send(Drop(source="s", target="w", number=confirmed))
                    confirmed += 1

            senders = [asyncio.create_task(send()) for _ in range(SENDERS)]
            # By then syncs follow each other without a pause, where the server does them.
            await asyncio.wait(senders, timeout=random.uniform(1.5, 2.5))
            assert valkey.process is not None
            os.kill(valkey.process.pid, signal.SIGKILL)
            for outcome in await asyncio.gather(*senders, return_exceptions=True):
                assert isinstance(outcome, BusError)
        url = await valkey.start()
        async with connect(url, channel=channel, delivery="at-least-once") as after:
            assert after.queues is not None
            (report,) = await after.queues.stats()
        return confirmed, report.backlog

    async def main() -> None:
        guard = GuardClient()
        await guard.start(project)
        valkey = EmbeddedValkey(project, guard, keeps_data=True)
        try:
            for _ in range(STORMS):
                confirmed, kept = await storm(valkey)
                assert confirmed > SENDERS
                assert confirmed <= kept
        finally:
            await valkey.stop()
            await guard.stop()

    asyncio.run(main())
