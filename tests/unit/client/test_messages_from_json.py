"""Messages made from JSON: checked where the type is known, passed on where not."""

import asyncio

import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.client import MessageInput
from pbus.errors import MessageInputError
from pbus.frames import TextFrame
from pbus.messages import BusFrameMessage


@pytest.mark.parametrize(
    ("type_name", "fields", "said"),
    [
        ("BusFrameMessage", {"fram": {}}, "did you mean 'frame'?"),
        ("BusFrameMessage", {}, "`frame`"),
        ("BusFrameMessage", {"frame": {"type": "TextFrame", "text": 3}}, "`$.text`"),
        ("BusActivateWorkerMessage", {"args": 3}, "`$.args`"),
        ("BusActivateWorkerMessage", {"zzzzz": 3}, "it has: args"),
        ("BusCancelMessage", {"source": "me"}, "set by pbus"),
        ("Anything", {"id": "me"}, "set by pbus"),
        ("BusAddWorkerMessage", {"worker": 1}, "never leaves a process"),
    ],
)
def test_wrong_fields_are_named(type_name: str, fields: dict[str, object], said: str) -> None:
    """A catalogue type says which field it does not take."""
    with pytest.raises(MessageInputError) as error:
        MessageInput(type_name, fields).check()
    assert said in error.value.message


@pytest.mark.parametrize(
    ("type_name", "fields"),
    [
        ("BusActivateWorkerMessage", {"args": {"a": 1}}),
        ("Unheard", {"whatever": [1, None]}),
        ("BusFrameMessage", {"frame": {"type": "UnheardFrame", "x": 1}}),
    ],
)
def test_right_fields_pass(type_name: str, fields: dict[str, object]) -> None:
    """Also of types, and of frames, that only the receiver knows."""
    MessageInput(type_name, fields).check()


def test_category_of_messages() -> None:
    """It decides whether all replicas or one get it."""
    assert "system" == MessageInput("BusEndWorkerMessage", {}).category
    assert "data" == MessageInput("Unheard", {}).category


def test_text_is_a_frame() -> None:
    """A text arrives as a text frame of its sender."""

    async def main() -> None:
        bus = AsyncQueueBus()
        async with bus, bus.tap() as tap:
            await MessageInput.text("hello").send(bus, source="cli-1", target="a")
            item = await anext(aiter(tap))
            assert "cli-1" == item.header.source
            assert b"hello" in item.body

    asyncio.run(main())
    assert "BusFrameMessage" == MessageInput.text("x").type
    assert BusFrameMessage(source="a", frame=TextFrame(text="x")).frame == TextFrame(text="x")
