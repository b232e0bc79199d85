"""The JSON of `pbus send --data`: given, in a file, or on stdin."""

import json
import sys
from pathlib import Path
from typing import Any

import typer


def read_object(data: str | None) -> dict[str, Any]:
    """The JSON object of --data: given, in a file (@name) or on stdin (-).

    Raises:
        typer.BadParameter: It cannot be read or is no JSON object; says where.
    """
    if data is None:
        return {}
    text, where = _read_text(data)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        problem = f"{where} is no JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise bad_data(problem) from None
    except RecursionError:
        raise bad_data(f"{where} is nested too deeply") from None
    if not isinstance(value, dict):
        raise bad_data(f"{where} must be a JSON object, not {_kind(value)}")
    return value


def _read_text(data: str) -> tuple[str, str]:
    if not data.startswith("@") and data != "-":
        return data, "the value"
    try:
        if data == "-":
            return sys.stdin.read(), "stdin"
        return Path(data[1:]).read_text(encoding="utf-8"), data[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise bad_data(f"cannot read {data!r}: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise bad_data(f"{name} is no JSON number")


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def bad_data(problem: str) -> typer.BadParameter:
    """The error of a --data that cannot be sent."""
    return typer.BadParameter(problem, param_hint="--data")
