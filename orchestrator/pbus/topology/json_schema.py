"""The JSON Schema of a topology file; editors check, complete and explain files by it."""

from typing import Any

import msgspec

from pbus.topology.schema import EXTENSION_PREFIX, TopologyFile

DIALECT = "http://json-schema.org/draft-07/schema#"  # every editor's YAML support knows it

_ROOT = TopologyFile.__name__
_VARIABLE = "Variable"
_UNCHANGEABLE = frozenset({"enum", "pattern"})  # a text with a variable in it cannot match these


def topology_schema() -> dict[str, Any]:
    """The schema; it allows ``${VAR}`` for each value that the loader expands."""
    definitions = msgspec.json.schema(TopologyFile)["$defs"]
    for schema in definitions.values():
        del schema["title"]  # names of classes mean nothing to a reader
        schema["properties"] = {key: _value(value) for key, value in schema["properties"].items()}
        schema["patternProperties"] = {f"^{EXTENSION_PREFIX}": {}}
    root = definitions.pop(_ROOT)
    root["anyOf"] = [{"required": [*root.pop("required")]}, {"required": ["include"]}]
    definitions[_VARIABLE] = {
        "description": "A value with ${VAR} or ${VAR:-default} in it.",
        "type": "string",
        "pattern": r"\$\{",
    }
    return {"$schema": DIALECT, "title": "pbus topology", **root, "$defs": definitions}


def _value(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may hold variables, within what draft 7 supports."""
    schema = {key: _part(key, value) for key, value in schema.items() if key != "default"}
    if "$ref" in schema and len(schema) > 1:  # draft 7 ignores the keys beside a reference
        schema["allOf"] = [{"$ref": schema.pop("$ref")}]
    return schema


def _part(key: str, part: Any) -> Any:
    if key in {"additionalProperties", "items"} and isinstance(part, dict):
        return _value(part)
    if key != "anyOf":
        return part
    kinds = [_value(kind) for kind in part]
    if any(map(_is_strict, kinds)) and {"type": "string"} not in kinds:
        kinds.append({"$ref": f"#/$defs/{_VARIABLE}"})
    return kinds


def _is_strict(schema: dict[str, Any]) -> bool:
    """Whether a text with a variable in it does not match."""
    is_other = schema.get("type") in {"integer", "number", "boolean"}
    return is_other or not _UNCHANGEABLE.isdisjoint(schema)
