"""A connection to Postgres, with an invented server: its deadlines."""

import asyncio
import contextlib

import pytest

from pbus.bus.pgmq.server.connection import BUILD_TIMEOUT_S, CALL_TIMEOUT_S, HealingConnection
from pbus.errors import BusUnavailableError
from pbus.testing import FakeClock


class Server:
    """A database, its own endpoint and connection.

    Args:
        build_s: How long it takes to install what is missing.
        fetch_s: How long a statement takes.
    """

    url = "postgresql://invented"

    def __init__(self, build_s: float, fetch_s: float = 0.0) -> None:
        self.build_s = build_s
        self.fetch_s = fetch_s

    async def connect(self, *, is_damaged, building=contextlib.nullcontext):
        """Install, and be the connection."""
        del is_damaged
        with building():
            await asyncio.sleep(self.build_s)
        return self

    async def close(self, connection) -> None:
        """Nothing to close."""

    def is_closed(self) -> bool:
        return False

    def add_termination_listener(self, listener) -> None:
        """Nothing ends."""

    def remove_termination_listener(self, listener) -> None:
        """Nothing ended."""

    def get_server_pid(self) -> int:
        return 1

    async def fetch(self, sql, *arguments):
        """Answer with the statement."""
        del arguments
        await asyncio.sleep(self.fetch_s)
        return [sql]


@pytest.mark.parametrize(
    ("build_s", "fetch_s", "is_in_time"),
    [
        (CALL_TIMEOUT_S * 6, CALL_TIMEOUT_S / 2, True),
        (CALL_TIMEOUT_S * 6, CALL_TIMEOUT_S * 2, False),
        (BUILD_TIMEOUT_S * 2, 0.0, False),
    ],
)
def test_installing_has_a_deadline_of_its_own(build_s: float, fetch_s: float, is_in_time: bool):
    """What takes minutes to install is installed; the statement after it has its own time."""

    async def main():
        link = HealingConnection(Server(build_s, fetch_s), "test")
        if is_in_time:
            assert ["SELECT 1"] == await link.call("SELECT 1")
        else:
            with pytest.raises(BusUnavailableError, match="no answer in time"):
                await link.call("SELECT 1")

    FakeClock().run(main())
