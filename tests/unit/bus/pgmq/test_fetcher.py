"""Taking from Postgres, with an invented server: what comes while a take is under way."""

import json

import pytest

from pbus.bus.pgmq.fetcher import Fetcher
from support.queue_helpers import DATA
from support.waiting import run

HOLDER = "consumer"


def word(number: int, text: str) -> str:
    """A notification that hands a message over."""
    return json.dumps([number, 7, "box", "d", {"n": 1, "i": number}, [[text, text]]])


class Lines:
    """Connections to a server whose first take finds an entry.

    Args:
        gone: Positions in it that had been handled before.
    """

    url = "postgresql://invented"
    channel = "channel"

    def __init__(self, *gone: int) -> None:
        self.reader = self
        self.fetcher = Fetcher(self, 5.0)
        self.entries = [
            {
                "hold": 1, "its_queue": 7, "mailbox": "box", "lane": "d", "due": None, "gone": gone,
                "headers": '{"n": 1, "i": 1}', "message": '[["0", "0"]]',
            }
        ]  # fmt: skip
        self.held = []

    def add_listener(self, heard) -> None:
        """Nothing is heard."""

    async def call(self, sql, *arguments, made=None, **_options):
        """Answer; a message is handed over while the entry is being removed."""
        del arguments
        if "queue_delete_settled" in sql:
            self.fetcher.push.receive(HOLDER, word(2, "first"))
        if "queue_fetch" in sql:
            known = made()[5]
            if known is not None:
                return [entry for entry in self.held if entry["hold"] not in known]
            self.held, self.entries = self.entries, []
            return self.held
        return []


def test_handed_over_between_takes_keeps_order():
    """Of two messages, one handed over as a take ends and one after it, the first comes first."""

    async def main():
        lines = Lines(0)
        wanted = [("box", DATA, 10)]
        messages = await lines.fetcher.fetch(wanted, consumer=HOLDER, wait_s=0.0)
        lines.fetcher.push.receive(HOLDER, word(3, "second"))
        messages += await lines.fetcher.fetch(wanted, consumer=HOLDER, wait_s=0.0)
        assert [b"first", b"second"] == [message.body for message in messages]

    run(main())


def test_fault_while_reading_an_answer_is_asked_about(monkeypatch):
    """What the server gave while an error kept it from the caller is found by the next take."""

    def fail(row):
        raise RuntimeError(row)

    async def main():
        lines = Lines()
        wanted = [("box", DATA, 10)]
        with monkeypatch.context() as patch:
            patch.setattr("pbus.bus.pgmq.entries.messages_of", fail)
            with pytest.raises(RuntimeError):
                await lines.fetcher.fetch(wanted, consumer=HOLDER, wait_s=0.0)
        (message,) = await lines.fetcher.fetch(wanted, consumer=HOLDER, wait_s=0.0)
        assert b"0" == message.body

    run(main())
