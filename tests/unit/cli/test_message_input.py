"""What `pbus send` sends: checked where the type is known, passed on where not."""

import asyncio
from pathlib import Path

import pytest
import typer

from pbus.bus.memory import AsyncQueueBus
from pbus.frames import TextFrame
from pbus.messages import BusFrameMessage
from pbus_cli.letters import Letter, check, post, read_object, text_letter


def test_data_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given, in a file, or not at all."""
    file = tmp_path / "data.json"
    file.write_text('{"a": "ü"}', encoding="utf-8")

    assert {"a": 1} == read_object('{"a": 1}')
    assert {"a": "ü"} == read_object(f"@{file}")
    assert {} == read_object(None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "line 1, column 2"),
        ('{"a": 1,\n "b": }', "line 2, column 7"),
        ("1", "not a number"),
        ("null", "not null"),
        ('"x"', "not a text"),
        ("true", "not a boolean"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_wrong_json_is_placed(data: str, said: str) -> None:
    """The place where it stops to be JSON, or what it is instead of an object."""
    with pytest.raises(typer.BadParameter) as error:
        read_object(data)
    assert said in error.value.message


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
    with pytest.raises(typer.BadParameter) as error:
        check(Letter(type_name, fields))
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
    check(Letter(type_name, fields))


def test_category_of_letters() -> None:
    """It decides whether all replicas or one get it."""
    assert "system" == Letter("BusEndWorkerMessage", {}).category
    assert "data" == Letter("Unheard", {}).category


def test_text_is_a_frame() -> None:
    """--text arrives as a text frame of its sender."""

    async def main() -> None:
        bus = AsyncQueueBus()
        async with bus, bus.tap() as tap:
            await post(bus, text_letter("hello"), source="cli-1", target="a", is_urgent=False)
            item = await anext(aiter(tap))
            assert "cli-1" == item.header.source
            assert b"hello" in item.body

    asyncio.run(main())
    assert "BusFrameMessage" == text_letter("x").type
    assert BusFrameMessage(source="a", frame=TextFrame(text="x")).frame == TextFrame(text="x")
