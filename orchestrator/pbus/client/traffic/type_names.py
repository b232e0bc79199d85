"""Names of message types as readers of traffic know them: whole, short, and those of frames."""

import re
from typing import Final

from pbus.messages import BusFrameMessage, BusMessage, Category

# What a client asks before it sends; followed only where these types are named.
OWN_TYPES: Final = frozenset({
    "BusAcceptanceRequestMessage",
    "BusAcceptanceResponseMessage",
    "BusProbeMessage",
})

# About workers that are there, and how much may be sent: no part of what was said.
HOUSEKEEPING: Final = frozenset({
    "BusWorkerRegistryMessage",
    "BusWorkerReadyMessage",
    "BusJobCreditMessage",
    "BusJobCreditRequestMessage",
    "BusControlRequestMessage",
    "BusControlResponseMessage",
    "BusPlanRequestMessage",
    "BusPlanResponseMessage",
    "BusJobsRequestMessage",
    "BusJobsResponseMessage",
})

_FRAME: Final = re.compile(rb'[{,]"frame":\{"type":"([^"\\]+)"')


def short_type(name: str) -> str:
    """A catalogue type without what they all begin and end with."""
    core = name.removeprefix("Bus").removesuffix("Message")
    return core if core and len(core) == len(name) - len("BusMessage") else name


def category_of(type_name: str, *, is_urgent: bool) -> Category:
    """The category of a type; one this process does not know goes by its lane."""
    known = BusMessage.catalogue.get(type_name)
    if known is not None:
        category: Category = known.category
        return category
    return "system" if is_urgent else "data"


def type_names(name: str, body: bytes) -> tuple[str, ...]:
    """All names of a message's type: whole, short, and that of the frame that it carries."""
    if name != BusFrameMessage.__name__:
        return name, short_type(name)
    found = _FRAME.search(body)
    frame = () if found is None else (found[1].decode(errors="replace"),)
    return (name, short_type(name), *frame)
