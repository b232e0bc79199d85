"""The differences between a replay and a golden recording, a line each."""

import json
from collections.abc import Iterable
from typing import Any, Final

from pbus.client.recordings.golden import Difference
from pbus.client.traffic.type_names import short_type
from pbus_cli.terminal.clean import clean_line
from pbus_cli.views.cells import cut

_LONGEST: Final = 200  # cells of a value


def difference_lines(found: Iterable[Difference]) -> list[str]:
    """Lines such as `tools -> agent JobResponse 1: response.text: expected "A", got "B"`."""
    return [_line(one) for one in found]


def _line(one: Difference) -> str:
    job = f" ({cut(one.job, _LONGEST)})" if one.job else ""
    place = f"{one.source} -> {one.target} {short_type(one.type)} {one.number}{job}"
    match one.kind:
        case "missing":
            text = f"missing: {_value(one.expected)}"
        case "unexpected":
            text = f"unexpected: {_value(one.actual)}"
        case _:
            text = f"{one.field}: expected {_value(one.expected)}, got {_value(one.actual)}"
    return clean_line(f"{place}: {text}")


def _value(value: Any) -> str:
    return cut(json.dumps(value, ensure_ascii=False), _LONGEST)
