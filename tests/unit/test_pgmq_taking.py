"""Taking from Postgres, with an invented server: what comes while a take is under way."""

import json

from pbus.bus.pgmq.taking import Taker
from support.mailing import DATA
from support.waiting import run

HOLDER = "holder"


def word(number: int, text: str) -> str:
    """A notification that hands a letter over."""
    return json.dumps([number, 7, "box", "d", {"n": 1, "i": number}, [[text, text]]])


class Lines:
    """Connections to a server whose first take finds an entry that had been handled before."""

    url = "postgresql://invented"
    channel = "channel"

    def __init__(self) -> None:
        self.reader = self
        self.taker = Taker(self, 5.0)
        self.entries = [
            {
                "hold": 1, "box": 7, "mailbox": "box", "lane": "d", "due": None, "gone": [0],
                "headers": '{"n": 1, "i": 1}', "message": '[["0", "0"]]',
            }
        ]  # fmt: skip

    def attend(self, heard) -> None:
        """Nothing is heard."""

    async def call(self, sql, *arguments, made=None, **_options):
        """Answer; a letter is handed over while the entry is being removed."""
        del arguments
        if "mail_finish" in sql:
            self.taker._handed(HOLDER, word(2, "first"))
        if "mail_take" in sql:
            made()
            found, self.entries = self.entries, []
            return found
        return []


def test_handed_over_between_takes_keeps_order():
    """Of two letters, one handed over as a take ends and one after it, the first comes first."""

    async def main():
        lines = Lines()
        wanted = [("box", DATA, 10)]
        letters = await lines.taker.take(wanted, holder=HOLDER, wait_s=0.0)
        lines.taker._handed(HOLDER, word(3, "second"))
        letters += await lines.taker.take(wanted, holder=HOLDER, wait_s=0.0)
        assert [b"first", b"second"] == [letter.body for letter in letters]

    run(main())
