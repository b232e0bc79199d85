"""How channels and keys are named on the server."""

import re

_GLOB = re.compile(r"([\\*?\[\]^-])")


FOLLOWED = "~"  # before an address: a copy for followers of what travels as stored mail


class Names:
    """The names of one bus channel.

    Args:
        channel: The bus channel, for example "pbus:my-app".
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._data = f"{channel}:d:".encode()
        self._system = f"{channel}:s:".encode()
        self._control = f"{channel}:c:".encode()

    def lane(self, lane: str, address: str) -> bytes:
        """The channel of one address and lane."""
        return (self._data if lane == "d" else self._system) + address.encode()

    def control(self, incarnation: str) -> bytes:
        """The channel on which one process hears of credit."""
        return self._control + incarnation.encode()

    def everything(self) -> bytes:
        """The pattern of both lanes of all addresses."""
        return (_GLOB.sub(r"\\\1", self.channel) + ":[ds]:*").encode()

    def key(self, what: str) -> str:
        """A key beside the channel; the braces keep all of them in one cluster slot."""
        return f"{{{self.channel}}}:{what}"
