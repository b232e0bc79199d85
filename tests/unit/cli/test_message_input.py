"""The JSON of --data."""

from pathlib import Path

import pytest
import typer

from pbus_cli.input.json_data import read_object


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
