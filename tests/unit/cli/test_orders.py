"""What a person orders at the display: the client's call, and how it went, in a line."""

import asyncio
from typing import Any

import pytest

from pbus.errors import NoStoredMessagesError, UnknownNameError
from pbus_cli.live.orders import carry_out


class FakeClient:
    """Notes calls; some fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.control = self
        self.dead_letters = self
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def called(*arguments: Any, **options: Any) -> int:
            self.calls.append((name, *arguments, *options.items()))
            if self._error is not None:
                raise self._error
            return 12

        return called


@pytest.mark.parametrize(
    ("order", "call", "told"),
    [
        (("restart", "stt", 0), ("restart", "stt"), ["restarting stt …", "stt was restarted"]),
        (("stop", "stt.1", 0), ("stop", "stt.1"), ["stopping stt.1 …", "stt.1 was stopped"]),
        (("start", "tts", 0), ("start", "tts"), ["starting tts …", "tts was started"]),
        (("scale", "stt", 3), ("scale", {"stt": 3}), ["scaling stt …", "stt runs 3"]),
        (("requeue", "k1", 0), ("requeue", "k1"), ["k1 is back in its queue"]),
        (("requeue", "", 0), ("requeue", ("every", True)), ["12 are back in their queues"]),
    ],
    ids=str,
)
def test_order_is_one_call(order: tuple[str, str, int], call: tuple[Any, ...], told: list[str]):
    """And it tells of the beginning and the end."""
    client, lines = FakeClient(), list[str]()
    asyncio.run(carry_out(client, *order, lines.append))  # type: ignore[arg-type]

    assert [call] == client.calls
    assert told == lines


@pytest.mark.parametrize(
    "error", [UnknownNameError("worker", "stt", None, ["tts"]), NoStoredMessagesError("voice")]
)
@pytest.mark.parametrize("verb", ["restart", "scale", "requeue"])
def test_order_that_fails_says_why(error: Exception, verb: str):
    """What the library says, with what to do."""
    lines = list[str]()
    asyncio.run(carry_out(FakeClient(error), verb, "stt", 2, lines.append))  # type: ignore[arg-type]

    assert lines[-1].startswith(f"{verb} stt: {error}")
