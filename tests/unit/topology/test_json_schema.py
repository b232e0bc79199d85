"""The JSON Schema of topologies: right, complete, and of one mind with the loader."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from pbus.topology.json_schema import topology_schema
from support.topologies import problems_of

ROOT = Path(__file__).parents[3]
FILES = [
    *sorted(ROOT.glob("configs/**/topology*.yaml")),
    *sorted(ROOT.glob("cli/pbus_cli/templates/*/topology.yaml")),
    ROOT / "tests/acceptance/sample/topology.yaml",
]
WORKER = "workers: {a: {worker: 'm:A'}}\n"


@pytest.fixture(scope="module")
def schema() -> Any:
    """The schema, itself seen to be right."""
    made = topology_schema()
    Draft7Validator.check_schema(made)
    return made


def properties(schema: Any) -> Iterator[tuple[str, Any]]:
    """All keys of topologies."""
    for part in (schema, *schema["$defs"].values()):
        yield from part.get("properties", {}).items()


def is_valid(schema: Any, text: str) -> bool:
    """What an editor says of a file."""
    return Draft7Validator(schema).is_valid(yaml.safe_load(text))


def test_every_key_is_described(schema: Any):
    """The description of a key tells its purpose."""
    keys = dict(properties(schema))

    assert {"name", "bus", "workers", "url", "channel", "worker", "command", "args"} <= set(keys)
    assert [] == [key for key, value in keys.items() if not value.get("description")]
    assert {"$schema", "title", "description"} <= set(schema)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_own_files_are_valid(schema: Any, file: Path):
    """All that the project shows is right in an editor, too."""
    errors = Draft7Validator(schema).iter_errors(yaml.safe_load(file.read_text()))

    assert [] == [error.message for error in errors]


@pytest.mark.parametrize(
    "text",
    [
        WORKER + "name: ${NAME:-x}",
        WORKER + "bus:\n  url: ${URL:-redis://h}\n  max_message_bytes: ${SIZE:-5000}",
        WORKER + "bus:",
        "workers:\n  a:\n    command: [sleep, 1]\n    env: {A: 1, B: null, C: true}",
        "workers:\n  a:\n    worker: m:A\n    replicas: ${N:-2}\n    active: ${ON:-true}",
        "workers:\n  a:\n    worker: ${A:-m:A}\n    restart: ${R:-always}",
    ],
)
def test_variables_are_valid(schema: Any, text: str, tmp_path: Path):
    """A value may come from a variable, wherever the loader takes one."""
    assert is_valid(schema, text)
    assert [] == problems_of(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "workers: {}",
        "workers: {a.b: {worker: 'm:A'}}",
        "workers: {a: {worker: 'm:A', replica: 2}}",
        "workers: {a: {worker: 'm:A', replicas: 0}}",
        "workers: {a: {worker: 'm:A', replicas: two}}",
        "workers: {a: {worker: 'm:A', command: [x]}}",
        "workers: {a: {worker: 'm.py:A'}}",
        "workers: {a: {active: true}}",
        "workers: {a: {worker: 'm:A', restart: sometimes}}",
        WORKER + "bus: {backend: kafka}",
        WORKER + "nme: x",
        WORKER + "name: a b",
    ],
)
def test_mistakes_are_found(schema: Any, text: str, tmp_path: Path):
    """An editor marks what the loader refuses."""
    assert not is_valid(schema, text)
    assert [] != problems_of(tmp_path, text)


def test_references_are_alone(schema: Any):
    """Draft 7 ignores what stands beside a reference, so nothing does."""
    beside = [
        node
        for node in nodes(schema)
        if isinstance(node, dict) and "$ref" in node and len(node) > 1
    ]

    assert [] == beside
    named = {node["$ref"] for node in nodes(schema) if isinstance(node, dict) and "$ref" in node}
    assert {f"#/$defs/{name}" for name in schema["$defs"]} == named


def test_patterns_suit_editors(schema: Any):
    """No Python-only syntax: editors read patterns as JavaScript does."""
    patterns = [
        node["pattern"] for node in nodes(schema) if isinstance(node, dict) and "pattern" in node
    ]

    assert patterns
    assert [] == [
        one for one in patterns if re.search(r"\(\?P|\(\?<|\\A|\\Z|\(\?[aiLmsux]", str(one))
    ]


def nodes(value: Any) -> Iterator[Any]:
    """A value and all within."""
    yield value
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    for child in children:
        yield from nodes(child)


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("include: b.yaml", True),
        ("include: [b.yaml, sub/c.yaml]\nworkers: {a: {extends: b}}", True),
        ("workers: {a: {extends: {file: b.yaml}, args: {x: 1}}, b: {extends: {worker: a}}}", True),
        ("workers: {a: {extends: a, worker: 'm:A'}}", True),
        ("include: 5", False),
        ("include: [{path: b.yaml}]", False),
        ("workers: {a: {extends: a b}}", False),
        ("workers: {a: {extends: {service: b}}}", False),
        ("workers: {a: {extends: b, worker: 'm:A', command: [x]}}", False),
    ],
)
def test_files_that_lean_on_others(schema: Any, text: str, *, is_right: bool):
    """Neither workers nor a program need to stand in a file that includes or extends others."""
    assert is_right == is_valid(schema, text)
