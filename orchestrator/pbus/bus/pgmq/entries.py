"""Rows of queues as messages; rows that are no entries, or have nothing left, are removed."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from pbus.bus.pgmq.encoding import Row, messages_of, sanitize_text
from pbus.bus.pgmq.server.connection import HealingConnection
from pbus.bus.pgmq.uncertainty import Uncertainty
from pbus.bus.queues.store import StoredMessage
from pbus.errors import BrokerFaultError

logger = logging.getLogger(__name__)

_LARGE = 128 * 1024 * 1024  # an entry that is read by itself has at most so many bytes
_READ = "SELECT pbus.queue_read_message($1) AS message"
_DELETE = "SELECT pbus.queue_delete_settled($1)"
_REFUSE = "SELECT pbus.queue_dead_letter_foreign($1, $2)"


class _ForeignRow(NamedTuple):
    hold: int
    queue: str
    problem: str


class EntryReader:
    """Makes messages of rows that a consumer holds.

    Args:
        connection: Reads large entries, and removes rows.
        uncertainty: Knows which entries each consumer holds.
    """

    def __init__(self, connection: HealingConnection, uncertainty: Uncertainty) -> None:
        self._connection = connection
        self._uncertainty = uncertainty
        self._settled: list[int] = []  # entries of which all had been handled before
        self._foreign: list[_ForeignRow] = []  # rows that are no entries

    def messages_of(self, rows: Sequence[Row], consumer: str) -> list[StoredMessage]:
        """The messages to be handled of rows that are held now; each row once."""
        messages = []
        held = self._uncertainty.held_by(consumer)
        for row in rows:
            hold = row["hold"]
            if hold is None or hold in held:
                continue
            try:
                found = messages_of(row)
            except ValueError as error:
                self._foreign.append(_ForeignRow(hold, row["mailbox"], str(error)))
                continue
            messages += found
            if found:
                held[hold] = len(found)
            else:
                self._settled.append(hold)
        return messages

    async def load(self, row: Row) -> Row:
        """A row with its message, which is read by itself where it is large."""
        if row["hold"] is None or row["message"] is not None:
            return row
        try:
            (found,) = await self._connection.call(_READ, row["hold"], size=_LARGE)
        except BrokerFaultError as error:
            self._foreign.append(_ForeignRow(row["hold"], row["mailbox"], error.reason))
            return {**row, "hold": None}
        return {**row, "message": found["message"] or "null"}

    async def clean_up(self) -> None:
        """Remove entries of which all had been handled before; dead-letter rows that are no entries.

        Raises:
            BusUnavailableError: The server is away. The rows are found again.
        """
        settled, self._settled = self._settled, []
        foreign, self._foreign = self._foreign, []
        if settled:
            await self._connection.call(_DELETE, settled)
        if foreign:
            await self._refuse(foreign)

    async def _refuse(self, foreign: list[_ForeignRow]) -> None:
        reasons = [sanitize_text(f"not written by pbus: {row.problem}") for row in foreign]
        await self._connection.call(_REFUSE, [row.hold for row in foreign], reasons)
        logger.warning(
            "%d rows in the queues of %s were not written by pbus and are dead letters now: %s",
            len(foreign), ", ".join(sorted({row.queue for row in foreign})), foreign[0].problem,
        )  # fmt: skip
