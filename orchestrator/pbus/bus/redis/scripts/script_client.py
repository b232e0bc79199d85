"""Running scripts: found by their digest, loaded where the server does not know them (any more)."""

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from pbus.bus.redis.connections import CommandConnection, OnEnd
from pbus.bus.redis.scripts.admin_lua import MEND, OPEN, TOUCH
from pbus.bus.redis.scripts.common_lua import Script
from pbus.bus.redis.server.endpoint import TROUBLE, Endpoint, reason_of
from pbus.errors import BusUnavailableError

logger = logging.getLogger(__name__)

# A script stumbled over what others wrote. A server that refuses names its reason first.
_DAMAGED = re.compile("NOGROUP|WRONGTYPE|(?!OOM|READONLY|MISCONF|NOREPLICAS|NOPERM).*user_script")


class ScriptClient:
    """Connections to one server, one a purpose: a small call does not wait behind a large one.

    Args:
        endpoint: The server.
        key: Given to each script as KEYS[1].
    """

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self.url = endpoint.url
        self._endpoint = endpoint
        self._key = key
        self._links: dict[str, CommandConnection] = {}

    async def run(self, purpose: str, script: Script, *arguments: Any) -> Any:
        """Run a script; once more where the connection had died unnoticed.

        Raises:
            BusUnavailableError: No answer, or a refusal.
        """
        try:
            return await self.once(purpose, script, *arguments)
        except TROUBLE as error:
            if isinstance(error, (TimeoutError, ResponseError)):
                raise self.error(error) from error
        try:
            return await self.once(purpose, script, *arguments)
        except TROUBLE as error:
            raise self.error(error) from error

    def post(self, purpose: str, script: Script, arguments: Sequence[Any], on_end: OnEnd) -> bool:
        """Run a script once, written here and now; returns False where its connection is busy or not there.

        Args:
            purpose: Which connection.
            script: One that the server knows, or on_end is told that it does not.
            arguments: Of the script.
            on_end: Called once: with its reply in a list, or with TROUBLE.
        """
        link = self._links.get(purpose)
        command = ("EVALSHA", script.digest, 1, self._key, *arguments)
        return link is not None and link.post([command], on_end)

    async def once(self, purpose: str, script: Script, *arguments: Any) -> Any:
        """Run a script, or raise TROUBLE; others may have removed scripts and groups meanwhile."""
        reply = await self._evaluate(purpose, script, arguments)
        if isinstance(reply, ResponseError) and _DAMAGED.match(str(reply)):
            odd = await self._evaluate(purpose, MEND, _queues_of(script, arguments))
            if odd and not isinstance(odd, ResponseError):
                names = b", ".join(odd).decode(errors="replace")
                logger.error(
                    "%s: keys or entries of others stood in the way, now %s", self.url, names
                )
            reply = await self._evaluate(purpose, script, arguments)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def _evaluate(self, purpose: str, script: Script, arguments: Sequence[Any]) -> Any:
        tail = (1, self._key, *arguments)
        reply = await self._ask(purpose, ("EVALSHA", script.digest, *tail))
        if isinstance(reply, ResponseError) and str(reply).startswith(("NOSCRIPT", "No matching")):
            reply = await self._ask(purpose, ("EVAL", script.source, *tail))
        return reply

    async def plain(self, *command: Any) -> Any:
        """Run a command that may be repeated.

        Raises:
            BusUnavailableError: No answer, or a refusal.
        """
        for is_again in (False, True):
            try:
                reply = await self._ask("care", command)
            except TROUBLE as error:
                if is_again or isinstance(error, TimeoutError):
                    raise self.error(error) from error
            else:
                break
        if isinstance(reply, ResponseError):
            raise self.error(reply)
        return reply

    def error(self, error: BaseException) -> BusUnavailableError:
        """Trouble in the words of the library; what the server refuses is said, once a minute."""
        if isinstance(error, ResponseError):
            self._endpoint.complain(error)
        return BusUnavailableError(self.url, reason_of(error))

    async def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in links.values()))

    async def _ask(self, purpose: str, command: Sequence[Any]) -> Any:
        link = self._links.get(purpose)
        if link is None:
            link = self._links[purpose] = CommandConnection(self._endpoint, f"queues ({purpose})")
        return (await link.request([command]))[0]


def _queues_of(script: Script, arguments: Sequence[Any]) -> Sequence[Any]:
    """Those that a call is about, for they may be missing in the index; where that is easily told."""
    return arguments[:1] if script is OPEN else arguments[1:] if script is TOUCH else ()
