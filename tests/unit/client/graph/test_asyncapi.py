"""The document of AsyncAPI 3.0: every reference leads somewhere, every job has a reply."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from pbus.client.graph.asyncapi import asyncapi_document
from pbus.client.graph.project_graph import GraphEdge, GraphWorker, ProjectGraph
from pbus.settings import BusSettings

# The parts of AsyncAPI's own schema (3.0.0) that the document uses.
REF = {"type": "object", "required": ["$ref"], "additionalProperties": False,
       "properties": {"$ref": {"type": "string", "pattern": "^#/"}}}  # fmt: skip
REFS = {"type": "array", "items": REF}
KEYS = {"pattern": r"^[\w\d.\-_]+$"}
TEXT = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["asyncapi", "info"],
    "additionalProperties": False,
    "properties": {
        "asyncapi": {"const": "3.0.0"},
        "info": {
            "type": "object", "required": ["title", "version"], "additionalProperties": False,
            "properties": {"title": TEXT, "version": TEXT, "description": TEXT},
        },
        "defaultContentType": TEXT,
        "servers": {
            "type": "object",
            "additionalProperties": {
                "type": "object", "required": ["host", "protocol"], "additionalProperties": False,
                "properties": {"host": TEXT, "protocol": TEXT, "description": TEXT},
            },
        },
        "channels": {
            "type": "object",
            "propertyNames": KEYS,
            "additionalProperties": {
                "type": "object", "additionalProperties": False,
                "properties": {
                    "address": {"type": ["string", "null"]}, "title": TEXT,
                    "messages": {
                        "type": "object", "propertyNames": KEYS, "additionalProperties": REF,
                    },
                },
            },
        },
        "operations": {
            "type": "object",
            "propertyNames": KEYS,
            "additionalProperties": {
                "type": "object", "required": ["action", "channel"], "additionalProperties": False,
                "properties": {
                    "action": {"enum": ["send", "receive"]}, "channel": REF, "messages": REFS,
                    "title": TEXT,
                    "reply": {
                        "type": "object", "additionalProperties": False,
                        "properties": {
                            "address": {
                                "type": "object", "required": ["location"],
                                "properties": {
                                    "location": {
                                        "type": "string",
                                        "pattern": r"^\$message\.(header|payload)#(/[^/]+)+$",
                                    }
                                },
                            },
                            "channel": REF, "messages": REFS,
                        },
                    },
                },
            },
        },
        "components": {
            "type": "object", "additionalProperties": False,
            "properties": {
                "messages": {
                    "type": "object", "propertyNames": KEYS,
                    "additionalProperties": {
                        "type": "object", "required": ["payload"], "additionalProperties": False,
                        "properties": {"name": TEXT, "title": TEXT, "payload": {"type": "object"}},
                    },
                },
                "schemas": {"type": "object", "propertyNames": KEYS},
            },
        },
    },
}  # fmt: skip
HARD = "lo/ad {x} é~1"


def document(bus=None) -> dict[str, Any]:
    graph = ProjectGraph(
        project="shop",
        is_observed=True,
        workers=[
            GraphWorker(name="front", kind="class"),
            GraphWorker(name="db", kind="class", replicas=2, jobs=["load", HARD]),
            GraphWorker(name="*", kind="everyone"),
            GraphWorker(name="cli-*", kind="clients"),
            GraphWorker(name="ghost", kind="unknown"),
        ],
        edges=[
            GraphEdge(source="front", target="db", jobs=["load", "undeclared"], types=["Note"]),
            GraphEdge(source="front", target="*", types=["BusFrameMessage"]),
            GraphEdge(source="cli-*", target="db", types=["Note"]),
            GraphEdge(source="front", target="ghost", types=["Note"]),
            GraphEdge(source="front", target="front", declared=["depends_on"]),
        ],
    )
    return asyncapi_document(graph, bus or BusSettings(channel="pbus:shop"))


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for one in node.values():
            yield from references(one)
    elif isinstance(node, list):
        for one in node:
            yield from references(one)


def followed(whole: dict[str, Any], reference: str) -> Any:
    node: Any = whole
    for part in reference.removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def test_it_has_the_form_of_asyncapi():
    """Its schema, and references that all lead somewhere within it."""
    whole = document()
    Draft7Validator.check_schema(SCHEMA)

    assert [] == [error.message for error in Draft7Validator(SCHEMA).iter_errors(whole)]
    found = list(references(whole))
    assert len(found) > 20
    assert all(followed(whole, one) for one in found)


def test_operations_name_messages_of_their_channels():
    """As the specification wants it, of the reply's channel, too."""
    whole = document()
    for operation in whole["operations"].values():
        for part in filter(None, (operation, operation.get("reply"))):
            prefix = part["channel"]["$ref"] + "/messages/"
            assert part["messages"]
            assert all(one["$ref"].startswith(prefix) for one in part["messages"])


def test_each_job_has_an_operation_with_reply():
    """The request tells where the answer goes: to its source."""
    whole = document()
    jobs = [one for one in whole["operations"].values() if one["action"] == "receive"]

    assert 2 == len(jobs)
    assert {"$message.payload#/source"} == {one["reply"]["address"]["location"] for one in jobs}
    names = [
        followed(whole, followed(whole, one["messages"][0]["$ref"])["$ref"])["payload"]["allOf"][1]
        for one in jobs
    ]
    assert {"load", HARD} == {one["properties"]["job_name"]["const"] for one in names}
    request = whole["components"]["schemas"]["BusJobRequestMessage"]
    assert {"type", "source", "job_id"} <= set(request["required"])


def test_edges_are_operations_that_send():
    """To a channel of the project; an order of starts sends nothing, a stranger has no channel."""
    whole = document()
    sends = {name for name, one in whole["operations"].items() if one["action"] == "send"}

    assert {"front.to.db", "front.to.everyone", "cli-_.to.db"} == sends
    assert {"replies", "front", "db", "everyone"} == set(whole["channels"])
    assert "pbus:shop/db" == whole["channels"]["db"]["address"]


@pytest.mark.parametrize(
    ("url", "host", "protocol"),
    [
        ("redis://user:hunter2@h:6379/0", "h:6379", "redis"),
        ("postgresql://user:hunter2@h/db", "h", "postgresql"),
        (None, "localhost", "redis"),
    ],
)
def test_no_password_is_shown(url, host, protocol):
    """The broker by host and port only."""
    whole = document(BusSettings.from_keys({"url": url, "channel": "c", "key": "hunter2-key"}))

    assert (host, protocol) == (
        whole["servers"]["bus"]["host"], whole["servers"]["bus"]["protocol"],
    )  # fmt: skip
    assert not re.search("hunter2", str(whole))
