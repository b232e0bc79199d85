"""Sessions of connections that broke: the server may still do, later, what they were asked."""

import asyncio
import contextlib
from collections import deque
from typing import Any

import asyncpg

_KEPT = 4  # connections that broke one after another, before one told that it is alive
# Not a younger session, which has the number of one that has ended.
_END = """SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE pid = {pid}
  AND usename = current_user AND clock_timestamp() - backend_start >= interval '{age_s} s'"""


class FormerSessions:
    """Ends the sessions that a connection had before."""

    def __init__(self) -> None:
        self._sessions: deque[tuple[int, float]] = deque(maxlen=_KEPT)

    def add(self, pid: int, connected_at: float) -> None:
        """Note a session whose connection is given up.

        Args:
            pid: Of its process on the server.
            connected_at: By the loop's clock.
        """
        self._sessions.append((pid, connected_at))

    async def end(self, connection: "asyncpg.Connection[Any]") -> None:
        """End all of them over a new connection."""
        now = asyncio.get_running_loop().time()
        with contextlib.suppress(asyncpg.PostgresError):
            for pid, connected_at in self._sessions:
                await connection.execute(_END.format(pid=pid, age_s=now - connected_at))
        self._sessions.clear()
