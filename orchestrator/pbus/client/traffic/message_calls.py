"""The messages of a client: sending, and following those that pass."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import structs

from pbus.client.addresses import new_name
from pbus.client.client_core import ClientCore
from pbus.codec import check_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pbus.client.traffic.message_input import MessageInput
    from pbus.client.traffic.message_tail import Filter, MessageTail
    from pbus.client.traffic.routes import Route
    from pbus.messages import BusMessage, Category

Names = str | Iterable[str]


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

    def tail(
        self,
        *,
        source: Names = (),
        target: Names = (),
        type: Names = (),  # noqa: A002 - as on the wire
        category: Category | Iterable[Category] = (),
        key: Names = (),
        pattern: str | None = None,
    ) -> MessageTail:
        """Follow messages: ``async for message in client.tail(source="indexer"): ...``.

        It costs the workers nothing. Leave it by closing it, the client, or an
        ``async with client.tail(...) as tail`` block.

        Args:
            source: Names or patterns (``*``, ``?``), one or several; a replica has its group's, too.
            target: Likewise; ``"*"`` for broadcasts.
            type: Likewise, whole (BusFrameMessage) or short (Frame).
            category: "data", "system" or "job", one or several.
            key: Keys or patterns, one or several.
            pattern: A regular expression, looked for in the message as JSON.

        Raises:
            re.error: The pattern is no regular expression.
        """
        from pbus.client.traffic.message_tail import Filter

        chosen = Filter(
            sources=_texts(source),
            targets=_texts(target),
            types=_texts(type),
            categories=frozenset(_texts(category)),  # type: ignore[arg-type]
            keys=_texts(key),
            pattern=None if pattern is None else re.compile(pattern.encode()),
        )
        return self.follow(chosen)

    def follow(self, chosen: Filter) -> MessageTail:
        """Follow the messages that pass a filter, as tail()."""
        from pbus.client.traffic.message_tail import MessageTail

        return self._owned(MessageTail(self._open_bus, chosen))


def _texts(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
