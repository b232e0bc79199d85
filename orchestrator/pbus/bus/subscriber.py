"""The subscriber of a bus: what listens to it."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from pbus.bus.lane_gate import LaneGate
from pbus.messages import BusMessage, Lane


class BusSubscriber:
    """Listens to the messages addressed to its name and to everyone.

    Subclass it, or bring any object with the same two methods and a name.

    Attributes:
        name: The address; unique within the process.
        is_draining: What it refuses from now on is for others, or for its next incarnation: stored messages
            are given back, not dropped.
        takes_opaque: Whether it receives messages and frames of types that this process does not know, as
            BusOpaqueMessage and OpaqueFrame; they are refused otherwise.
        is_durable: Whether it has a mailbox for stored messages (at-least-once); without one it
            hears only what is never stored.
        gates: By which it holds messages of a lane back for a while; without one all come at once.
        prefetch: Stored messages it may have in hand at once; None for the bus' own bound.
        news: Whether it receives the news of workers, which are broadcast at each start and end: "all"; "few"
            for one of many, of which the bus gives them to the first MOST_OBSERVERS; "none".
        on_news_wanted: Set by the bus where `news` is "none"; to be called when it was changed.
        wire_decoder: Its own decoder of encoded messages, of types that this process has no classes for; None
            for the bus' own. The message that it
            returns is handed over, None is dropped; it does not raise. Set `takes_opaque`, too.
    """

    name: str
    is_draining: bool = False
    takes_opaque: bool = False
    is_durable: bool = True
    gates: Mapping[Lane, LaneGate] = MappingProxyType({})
    prefetch: int | None = None
    news: Literal["all", "few", "none"] = "all"
    on_news_wanted: Callable[[], None] | None = None
    wire_decoder: Callable[[bytes], Any] | None = None

    @property
    def address(self) -> str:
        """The address at which other processes reach it: its name, unless that is known here only."""
        return self.name

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Whether to be given this message; asked just before delivery. Refused is dropped."""
        del message
        return True

    def on_bus_message(self, message: BusMessage) -> Awaitable[None] | None:
        """Handle one message; mostly an async method. One that never waits may return None.

        Data messages come one at a time, in order; a system message comes beside a data handler
        in progress. What it raises is logged and counted, the next message follows.
        """
        raise NotImplementedError
