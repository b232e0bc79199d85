"""Answers that may have been lost: which entries a consumer holds, and what it has to ask for."""

from collections.abc import Iterable, Sequence


class Inquiry:
    """One question to the server: what its consumer knew, and on which connection, when it was sent.

    Attributes:
        connection: The number of the connection.
        known: The entries that the consumer knows it holds, where others may have been lost.
    """

    __slots__ = ("connection", "known")

    def __init__(self) -> None:
        self.connection = 0
        self.known: list[int] | None = None


class Uncertainty:
    """The entries in flight to each consumer of this process, and doubts whether those are all.

    Attributes:
        connection: Counts the connections that asked, one after another.
    """

    def __init__(self) -> None:
        self.connection = 0
        self._held: dict[str, dict[int, int]] = {}  # consumer: {hold: messages not settled}
        self._uncertain: dict[str, int] = {}  # consumer: since which connection

    @property
    def consumers(self) -> list[str]:
        """All that have fetched anything."""
        return list(self._held)

    def held_by(self, consumer: str) -> dict[int, int]:
        """The entries that a consumer knows it holds, with how many messages are not settled."""
        return self._held.setdefault(consumer, {})

    def all_held(self) -> list[int] | None:
        """The entries that the consumers know they hold; None: there may be others."""
        if self._uncertain:
            return None
        return [hold for held in self._held.values() for hold in held]

    def reconnecting(self, consumers: Iterable[str]) -> None:
        """Doubt what was pushed to consumers: it may not have come over the connection before."""
        self.connection += 1
        for consumer in consumers:
            self.doubt(consumer)

    def doubt(self, consumer: str) -> None:
        """Have the next question ask for what the consumer was given and does not know of."""
        self._uncertain.setdefault(consumer, self.connection)

    def doubted_since(self, consumer: str) -> int | None:
        """The connection whose answers, and those before, may have been lost; None: nothing was."""
        return self._uncertain.get(consumer)

    def ask(self, inquiry: Inquiry, consumer: str) -> None:
        """Note what a consumer knows in a question that is being sent now."""
        inquiry.connection = self.connection
        inquiry.known = list(self.held_by(consumer)) if consumer in self._uncertain else None

    def answered(self, inquiry: Inquiry, consumer: str, *, is_cut: bool) -> None:
        """End the doubt that a question was about.

        Args:
            inquiry: The question.
            consumer: Its consumer.
            is_cut: The answer ended early, so all that was pushed comes after what it left out.
        """
        if inquiry.known is None or inquiry.connection != self.connection:
            return  # asked before the doubt arose
        self._uncertain.pop(consumer, None)
        if is_cut:
            self._uncertain[consumer] = 0

    def settled(self, holds: Iterable[int]) -> None:
        """One message of each of these entries was settled."""
        for hold in holds:
            for held in self._held.values():
                if hold in held:
                    held[hold] -= 1
                    if held[hold] <= 0:
                        del held[hold]

    def release(self, prefixes: Sequence[str]) -> list[str]:
        """Forget the entries of consumers by prefix, which were requeued; returns these consumers."""
        consumers = [name for name in self._held if name.startswith(tuple(prefixes))]
        for consumer in consumers:
            self._held[consumer].clear()
        return consumers
