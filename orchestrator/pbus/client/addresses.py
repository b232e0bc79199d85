"""The addresses of clients: of no worker, and nobody else's."""

from typing import Final

from pbus.ids import new_token

CLIENT_PREFIX: Final = "cli-"  # one of those that the bus knows to be of no worker


def new_name() -> str:
    """An address that nobody else has."""
    return f"{CLIENT_PREFIX}{new_token(32)}"
