"""Counts of what passed through the bus of one process."""

import msgspec

# Addresses of processes that host no worker begin with these.
EPHEMERAL_PREFIXES = ("cli-", "runner-", "supervisor-", "~")
_MOST_ADDRESSES = 256  # counted one by one


class Counters(msgspec.Struct):
    """Counts of messages that passed through one bus of one process.

    Attributes:
        sent: Messages accepted by send().
        lost: Messages of others noticed missing on the way here.
        undelivered: Own messages that no process was listening for.
        unreached: Those of them to workers, by address.
        refused: Received bytes that were no acceptable message.
        unsealed: Those of them that were not sealed with a key of the channel.
        dropped: Messages received for a name that is not (or no longer) here.
        foreign: Broadcasts of types that this process does not know.
        faults: How often a task of the bus ended by an error, and was begun again.
    """

    sent: int = 0
    lost: int = 0
    undelivered: int = 0
    refused: int = 0
    unsealed: int = 0
    dropped: int = 0
    foreign: int = 0
    faults: int = 0
    unreached: dict[str, int] = msgspec.field(default_factory=dict)

    def note_undelivered(self, address: str, count: int = 1) -> None:
        """Count messages that reached no process; visitors and followers come and go."""
        self.undelivered += count
        known = self.unreached
        if not address.startswith(EPHEMERAL_PREFIXES) and (
            address in known or len(known) < _MOST_ADDRESSES
        ):
            known[address] = known.get(address, 0) + count

    def note_sent_elsewhere(self, address: str) -> None:
        """Take back what was counted: a message that reached no process was sent to another address."""
        self.undelivered -= 1
        if address in self.unreached:
            self.unreached[address] -= 1
            if not self.unreached[address]:
                del self.unreached[address]

    def note_fault(self) -> None:
        """Count a task of the bus that ended by an error."""
        self.faults += 1
