"""Names of channels and keys on the server."""

import re

from pbus.errors import BusError

_GLOB = re.compile(r"([\\*?\[\]^-])")


FOLLOWED = "~"  # before an address: a copy for followers of what travels as stored messages


class Keys:
    """The names of one bus channel.

    Keys belong to a database, publish/subscribe channels to the whole server: so their names carry
    the number of any database but 0.

    The braces tell where the name of the bus channel ends: a pattern of access rights for one channel
    covers no other whose name begins alike.

    Args:
        channel: The bus channel, for example "pbus:my-app".
        database: The number of the database.

    Raises:
        BusError: The name has braces.
    """

    def __init__(self, channel: str, database: int = 0) -> None:
        if "{" in channel or "}" in channel:
            raise BusError(f"the channel {channel!r} has braces, which on Redis end its name")
        self.channel = channel
        self._stem = f"{{{channel}}}:{database}" if database else f"{{{channel}}}"
        self._data = f"{self._stem}:d:".encode()
        self._system = f"{self._stem}:s:".encode()
        self._control = f"{self._stem}:c:".encode()

    def lane(self, lane: str, address: str) -> bytes:
        """The channel of one address and lane."""
        return (self._data if lane == "d" else self._system) + address.encode()

    def control(self, incarnation: str) -> bytes:
        """The channel on which one process hears of credit."""
        return self._control + incarnation.encode()

    def everything(self) -> bytes:
        """The pattern of both lanes of all addresses."""
        return (_GLOB.sub(r"\\\1", self._stem) + ":[ds]:*").encode()

    def all_keys(self) -> str:
        """The pattern of all keys; no other channel's, however alike its name is."""
        return _GLOB.sub(r"\\\1", self.key("")) + "*"

    def key(self, what: str) -> str:
        """A key beside the channel; the braces keep all of them in one cluster slot."""
        return f"{{{self.channel}}}:{what}"
