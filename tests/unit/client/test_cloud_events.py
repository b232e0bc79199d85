"""Messages as CloudEvents 1.0: valid by the specification's rules, whatever a message has."""

import json
import re
from hashlib import blake2b
from typing import Any

import jsonschema
import msgspec
import pytest

from pbus.client.traffic.message_tail import TailMessage
from pbus.client.traffic.tails.cloud_events import cloud_event

_TEXT = {"type": "string", "minLength": 1}
# The specification's schema of the JSON format, with its rules for names and values of extensions.
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "id": _TEXT,
        "source": {**_TEXT, "format": "uri-reference"},
        "specversion": {**_TEXT, "const": "1.0"},
        "type": _TEXT,
        "datacontenttype": _TEXT,
        "dataschema": {**_TEXT, "format": "uri"},
        "subject": _TEXT,
        "time": {**_TEXT, "format": "date-time"},
        "data": {"type": ["object", "string", "number", "array", "boolean", "null"]},
        "data_base64": {"type": "string", "contentEncoding": "base64"},
    },
    "required": ["id", "source", "specversion", "type"],
    "patternProperties": {"^[a-z0-9]{1,20}$": True, "^data_base64$": True},
    "additionalProperties": False,
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = blake2b(b"7-1", digest_size=24).hexdigest()[32:]
_OWN = set(SCHEMA["properties"])  # type: ignore[call-overload]
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?#]|%[0-9A-F]{2})+")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]")


def event_of(project: str = "shop", **fields: Any) -> dict[str, Any]:
    """The event of a message, as a program reads it that knows the specification."""
    given: dict[str, Any] = {
        "time": 1795843800.5,
        "id": "7-1",
        "type": "Remark",
        "category": "data",
        "source": "mic",
        "target": "stt",
        "size_bytes": 90,
        "is_urgent": False,
        "body": b'{"type":"Remark","source":"mic","text":"h\xc3\xa4"}',
    }
    event: dict[str, Any] = json.loads(
        msgspec.json.encode(cloud_event(TailMessage(**given | fields), project))
    )
    jsonschema.validate(event, SCHEMA)
    assert _URI_REFERENCE.fullmatch(event["source"])
    assert _DATE_TIME.fullmatch(event.get("time", "2000-01-01T00:00:00Z"))
    for name in event.keys() - _OWN:  # of the types that extensions may have
        assert type(event[name]) in {str, int, bool}
        assert type(event[name]) is not int or abs(event[name]) < 1 << 31
    texts = [value for name, value in event.items() if isinstance(value, str) and name != "data"]
    assert [] == [text for text in texts if _CONTROL.search(text)]
    return event


def test_an_event_has_all_that_a_message_has():
    """Attributes for what the specification names, extensions for the rest."""
    event = event_of(
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
        key="call-17",
        target="stt.1",
        is_reached=False,
        is_urgent=True,
    )

    assert {
        "specversion": "1.0",
        "id": "7-1",
        "traceparent": f"00-{TRACE}-{SPAN}-01",
        "source": "/pbus/shop/mic",
        "type": "pbus.Remark",
        "subject": "stt.1",
        "time": "2026-11-28T05:30:00.500Z",
        "datacontenttype": "application/json",
        "data": {"text": "hä"},
        "category": "data",
        "sizebytes": 90,
        "partitionkey": "call-17",
        "urgent": True,
        "undelivered": True,
    } == event


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, {"partitionkey", "urgent", "undelivered", "local"}),
        ({"target": None}, {"subject"}),
        ({"time": float("inf")}, {"time"}),
        ({"time": 1e18}, {"time"}),
        ({"body": b"\xff"}, {"data", "datacontenttype"}),
        ({"body": b"", "has_body": False}, {"data", "datacontenttype"}),
    ],
)
def test_what_is_not_there_is_left_out(fields: dict[str, Any], missing: set[str]):
    """An extension that is null would be no event."""
    assert set() == missing & event_of(**fields).keys()


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ""},
        {"type": "a\x1b[2Jb", "target": "x\x00", "key": "\x9f"},
        {"source": "Acme Bot: 1/ü%\n", "project": "größer als / alles"},
        {"size_bytes": 1 << 40},
        {"is_local": True, "time": 0.0},
    ],
)
def test_odd_messages_are_valid_events(fields: dict[str, Any]):
    """Names are any text, and messages of foreign programs are anything."""
    assert event_of(**fields)["id"]


def test_events_without_an_id_differ():
    """A reader that drops repeats drops none of them."""
    assert event_of(id="")["id"] != event_of(id="")["id"]
