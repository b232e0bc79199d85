"""The addresses of clients, which are of no worker."""

from typing import Final

from pbus.ids import new_token

CLIENT_PREFIX: Final = "cli-"  # one of those that the bus knows to be of no worker


def new_name() -> str:
    """A new address, used once."""
    return f"{CLIENT_PREFIX}{new_token(32)}"
