"""The log of a connection to Postgres: its loss, its return, statements that the server refuses."""

import logging

import asyncpg

from pbus.bus.pgmq.server.endpoint import LOST, MISSING, reason_of
from pbus.errors import BusUnavailableError

logger = logging.getLogger(__name__)

# Reasons that are logged even after another one, since they do not come and go.
_LOGGED = (asyncpg.PostgresError, BusUnavailableError)
_THOUGHT_DEAD = "PB001"  # raised by pbus.queue_fetch for its caller


class ConnectionLog:
    """Logs each state of one connection once.

    Args:
        name: Of the connection.
        url: Of the server, password masked.
    """

    def __init__(self, name: str, url: str) -> None:
        self._name = name
        self._url = url
        self._is_lost = False
        self._reasons: set[str] = set()  # logged since the connection was lost
        self._faults: dict[str, str | None] = {}  # statement: the SQLSTATE it failed with

    def note_connected(self) -> None:
        """The connection is made."""
        if self._is_lost:
            logger.warning("%s: connected to %s again", self._name, self._url)
            self._is_lost = False
            self._reasons.clear()

    def note_trouble(self, error: BaseException) -> None:
        """There is no connection. Log each reason once until there is one again."""
        reason = reason_of(error)
        if not self._is_lost:
            logger.warning("%s: lost %s (%s); trying again", self._name, self._url, reason)
        elif reason not in self._reasons and isinstance(error, _LOGGED):
            logger.warning("%s: %s still cannot be used: %s", self._name, self._url, reason)
        self._reasons.add(reason)
        self._is_lost = True

    def note_success(self, sql: str) -> None:
        """A statement was executed."""
        self._faults.pop(sql, None)

    def note_fault(self, sql: str, error: BaseException | None, *, is_up: bool) -> None:
        """A statement failed. Log the server's answer once until it executes the statement.

        Args:
            sql: The statement.
            error: What it failed with.
            is_up: Whether there is a connection: else that was the reason, which is logged already.
        """
        if not isinstance(error, asyncpg.PostgresError) or isinstance(error, (*LOST, *MISSING)):
            return
        if is_up and error.sqlstate != _THOUGHT_DEAD and self._faults.get(sql) != error.sqlstate:
            self._faults[sql] = error.sqlstate
            logger.error(
                "%s: %s answers with an error (SQLSTATE %s): %s; trying again",
                self._name, self._url, error.sqlstate, error,
            )  # fmt: skip
