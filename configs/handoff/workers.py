"""A conversation that goes from hand to hand: text frames in, words out, one speaker at a time."""

from dataclasses import dataclass
from typing import Any

from pbus import BaseWorker, BusFrameMessage, BusMessage, TextFrame, WorkerActivationArgs


@dataclass(kw_only=True)
class Handover(WorkerActivationArgs):
    """What a colleague is told.

    Attributes:
        history: What was said, oldest first.
    """

    history: list[str] | None = None


class Agent(BaseWorker):
    """Talks while it is active, and hands over when a colleague's word falls.

    Args:
        greeting: What it begins with.
        colleagues: Who takes over, by the word that calls for them.
    """

    def __init__(
        self, name: str, *, greeting: str, colleagues: dict[str, str], **options: Any
    ) -> None:
        super().__init__(name, **options)
        self._greeting = greeting
        self._colleagues = colleagues
        self._history: list[str] = []

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """Begin to talk, knowing what was said."""
        self._history = Handover.from_dict(args).history or []
        self._say(f"{self._greeting} I know of {len(self._history)} things said so far")

    async def on_deactivated(self) -> None:
        """Another worker talks now."""
        print("I am quiet", flush=True)

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Only what people say."""
        return isinstance(message, BusFrameMessage) and isinstance(message.frame, TextFrame)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Answer, or hand over."""
        if not isinstance(message, BusFrameMessage) or not isinstance(message.frame, TextFrame):
            return
        text = message.frame.text
        self._history.append(text)
        for word, colleague in self._colleagues.items():
            if word in text.lower():
                self._say(f"{colleague} will take care of that")
                await self.activate_worker(
                    colleague, args=Handover(history=self._history), deactivate_self=True
                )
                return
        self._say(f"You said: {text}")

    def _say(self, text: str) -> None:
        print(text, flush=True)
