"""A described topology as the text of a topology file."""

from collections.abc import Mapping
from typing import Any, Final

import yaml

from pbus.settings import DELIVERY_KEYS
from pbus.topology.schema import TopologyFile, WorkerSection

_WIDTH: Final = 100


def yaml_text(described: Mapping[str, Any]) -> str:
    """The YAML of a description: what `describe` gives, as a file could say it.

    What is not given and what is derived (`instances`) is left out; a `$` is doubled, so that
    reading the text again expands nothing. Masked values stay masked.
    """
    file = _only(described, TopologyFile.__struct_fields__)
    file["bus"] = _bus(described["bus"])
    file["workers"] = {
        worker["name"]: _only(worker, WorkerSection.__struct_fields__)
        for worker in described["workers"]
    }
    text: str = yaml.dump(
        _escaped(file), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
    return text


def _bus(bus: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the bus; those about stored messages only where messages are stored."""
    is_stored = bus["delivery"] == "at-least-once"
    keys = {key: one for key, one in bus.items() if is_stored or key not in DELIVERY_KEYS}
    return _only(keys, tuple(keys))


def _only(values: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The values that are given, in the order of the description."""
    return {key: one for key, one in values.items() if key in keys and not _is_absent(one)}


def _is_absent(value: Any) -> bool:
    return value is None or value in ({}, [])


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


class _Dumper(yaml.SafeDumper):
    """Writes lists of words on one line, and repeats instead of making aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - readers see each value in place
        """Never an alias."""
        return True


def _list(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    is_flat = not any(isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_flat)


_Dumper.add_representer(list, _list)
