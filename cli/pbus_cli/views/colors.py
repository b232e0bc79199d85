"""Colours by meaning; only the terminal's own sixteen, so that light themes stay readable."""

import zlib
from typing import Final

from pbus.observe import State

STATES: Final[dict[State, str]] = {
    "waiting": "dim",
    "starting": "cyan",
    "ready": "green",
    "unhealthy": "bold magenta",
    "unresponsive": "bold magenta",
    "backoff": "bold magenta",
    "stopping": "cyan",
    "exited": "",
    "failed": "bold red reverse",
}
ALARM: Final = "bold red reverse"
LOST: Final = "bold red"
URGENT: Final = "bold magenta"
ERROR: Final = "bold red"
JOB: Final = "blue"
SYSTEM: Final = "cyan"
QUIET: Final = "dim"
HEADING: Final = "bold"

# Which read on light and dark backgrounds; red is for trouble.
_NAMES: Final = ("cyan", "green", "magenta", "blue")


def of_name(name: str) -> str:
    """The colour of a worker: always the same for one name, in every view."""
    return _NAMES[zlib.crc32(name.encode()) % len(_NAMES)]
