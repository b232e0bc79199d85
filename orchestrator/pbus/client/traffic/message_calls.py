"""The messages of a client: sending, and following those that pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs

from pbus.client.addresses import new_name
from pbus.client.client_core import ClientCore
from pbus.codec import check_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    from pbus.client.traffic.message_filter import Filter, TailTerms
    from pbus.client.traffic.message_input import MessageInput
    from pbus.client.traffic.message_tail import MessageTail
    from pbus.client.traffic.routes import Route
    from pbus.client.traffic.tails.message_pairs import PairTail
    from pbus.client.traffic.tails.unknown_terms import UnknownTerm
    from pbus.messages import BusMessage


class MessageCalls(ClientCore):
    """Lets a client send messages, and follow those of others."""

    async def send(
        self,
        target: str | None,
        type: str | MessageInput,  # noqa: A002 - as on the wire
        fields: Mapping[str, Any] | None = None,
        *,
        urgent: bool = False,
        key: str | None = None,
    ) -> list[str | None]:
        """Send a message.

        Args:
            target: A worker; the name of a group means one of its replicas, for a system message
                all of them. None for everyone.
            type: The name of the message's type, which only the receivers need to know.
            fields: Its own fields, JSON values.
            urgent: Overtake queued data.
            key: Of a group, all messages of one key go to one replica, in order.

        Returns:
            The workers it was sent to; None among them stands for everyone.

        Raises:
            MessageInputError: The type does not take these fields, or the key is none.
            WorkerNotFoundError: No such worker was registered in time.
            MessageRefusedError: No receiver knows the type.
            BusFullError: The receiver makes no room.
        """
        from pbus.client.traffic.message_input import MessageInput

        message = type if isinstance(type, MessageInput) else MessageInput(type, fields or {}, key)
        return await (await self.route(target, message, urgent=urgent)).send()

    async def send_text(
        self, target: str | None, text: str, *, key: str | None = None
    ) -> list[str | None]:
        """Send a text frame. Arguments and errors as send()."""
        from pbus.client.traffic.message_input import MessageInput

        return await self.send(target, MessageInput.text(text, key))

    async def send_bus_message(self, message: BusMessage) -> None:
        """Send a message as it is; its source should be this client's name.

        With a key and the name of a group it goes to the replica that the key belongs to.

        Raises:
            MessageEncodeError: A field cannot be carried unchanged, or its key is none.
            BusFullError: The receiver makes no room.
        """
        bus = self._open_bus
        if message.target is None or message.key is None:
            await bus.send(message)
            return
        check_key(message.key, type(message).__name__)

        async def post(name: str) -> bool:
            return await bus.send(structs.replace(message, target=name))

        await self._send_keyed(message.target, message.key, post)

    async def send_all(self, messages: Sequence[BusMessage]) -> None:
        """Send messages as send_bus_message() does, in order, all at once, with one wait for all.

        Raises:
            BatchError: Some were not sent: `failures` has the error of each by its position.
            BusClosedError: The bus is stopped: nothing was sent.
        """
        sending = await self._open_bus.begin_batch()

        async def add(position: int, message: BusMessage) -> None:
            if message.target is None or message.key is None:
                await sending.add(position, message)
            else:
                await (await self._key_owners()).add(sending, position, message)

        await sending.run(messages, add)

    async def route(
        self, target: str | None, message: MessageInput, *, urgent: bool = False
    ) -> Route:
        """The route of a message, to send it often. Arguments and errors as send()."""
        from pbus.client.traffic.routes import Router

        router = Router(self._open_bus, self.name, new_name, self._send_keyed)
        within_s = self._find_s
        return await router.for_message(target, message.check(), urgent=urgent, within_s=within_s)

    @property
    def unreached(self) -> dict[str, int]:
        """Counts of messages of this client that reached no process, by target; complete once closed."""
        return dict(self.bus.counters.unreached)

    def tail(self, **terms: Unpack[TailTerms]) -> MessageTail:
        """Follow messages: ``async for message in client.tail(source="indexer"): ...``.

        It costs the workers nothing. Leave it by closing it, the client, or an
        ``async with client.tail(...) as tail`` block.

        Args:
            terms: source, target: names or patterns (``*``, ``?``), one or several; a replica has
                its group's, too; the target ``"*"`` for broadcasts. type: likewise, whole
                (BusFrameMessage), short (Frame), or of a frame (TextFrame). category: "data",
                "system" or "job", one or several. key: keys or patterns. pattern: a regular
                expression, looked for in the message as JSON. exclude: names or patterns of
                sources, targets and types that are left out, or of one of these ("type=Frame").
                job: ids of jobs, for all their messages. trace: ids of traces. match: a JMESPath expression that holds
                for the fields that `pbus tail --json` prints. sample: of so many messages that
                are left, one. headers_only: without the types' own fields.

        Raises:
            re.error: The pattern is no regular expression.
            MatchExpressionError: The condition is no JMESPath expression.
        """
        from pbus.client.traffic.message_filter import filter_of

        return self.follow(filter_of(terms))

    def pairs(self, **terms: Unpack[TailTerms]) -> PairTail:
        """Follow requests with their answers, and the time between.

        They are jobs, and other messages that a handler answered to their sender. Of the two, one has to meet the conditions, and none may be excluded; `match` is on what
        `pbus tail --pairs --json` prints. Arguments and errors as tail().
        """
        from pbus.client.traffic.message_filter import filter_of

        return self.follow_pairs(filter_of(terms))

    def follow_pairs(self, chosen: Filter) -> PairTail:
        """Follow the pairs that a filter chooses, as pairs()."""
        from pbus.client.traffic.message_filter import Filter
        from pbus.client.traffic.tails.message_pairs import PairTail

        return PairTail(self.follow(Filter()), chosen)

    async def unknown_terms(self, chosen: Filter) -> list[UnknownTerm]:
        """The sources, targets and types of a filter that nothing in the project has.

        It may be that a worker has not come yet, or a type was not sent: nothing is refused for it.

        Raises:
            BusUnavailableError: The broker does not answer.
        """
        from pbus.client.traffic.tails.unknown_terms import unknown_terms

        return await unknown_terms(self._open_bus, chosen)

    def follow(self, chosen: Filter) -> MessageTail:
        """Follow the messages that pass a filter, as tail()."""
        from pbus.client.traffic.message_tail import MessageTail

        return self._owned(MessageTail(self._open_bus, chosen))
