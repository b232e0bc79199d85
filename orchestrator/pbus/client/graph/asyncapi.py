"""The graph as a document of AsyncAPI 3.0: channels, and operations with reply for each job."""

import re
from importlib import metadata
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from pbus.client.graph.project_graph import GraphEdge, GraphWorker, ProjectGraph
from pbus.messages import BusJobRequestMessage, BusJobResponseMessage, message_type
from pbus.settings import BusSettings

VERSION: Final = "3.0.0"
_REPLIES: Final = "replies"
_SCHEMAS: Final = "#/components/schemas/{name}"
_PROTOCOLS: Final = {"redis": "redis", "pgmq": "postgresql", "memory": "memory"}
_NO_KEY: Final = re.compile(r"[^\w.-]")


def asyncapi_document(graph: ProjectGraph, bus: BusSettings) -> dict[str, Any]:
    """A document of AsyncAPI 3.0, as JSON values.

    Each worker is a channel with the messages that it receives. Each job is an operation that
    receives a request and replies; each edge with messages is an operation that sends.

    Args:
        graph: Declared or observed.
        bus: Of the project; passwords are left out.
    """
    own = [one for one in graph.workers if one.kind in {"class", "command", "everyone"}]
    schemas = msgspec.json.schema_components(
        [BusJobRequestMessage, BusJobResponseMessage], ref_template=_SCHEMAS
    )[1]
    document = _Document(bus.channel, schemas)
    for worker in own:
        document.add_worker(worker)
    for edge in graph.edges:
        document.add_edge(edge)
    return {
        "asyncapi": VERSION,
        "info": {
            "title": graph.project,
            "version": "1.0.0",
            "description": "Workers, their jobs and messages; "
            f"made by pbus {metadata.version('pbus-orchestrator')}.",
        },
        "defaultContentType": f"application/{bus.encoding}",
        "servers": {"bus": _server(bus)},
        "channels": document.channels,
        "operations": document.operations,
        "components": {"messages": document.messages, "schemas": schemas},
    }


class _Document:
    """Collects channels, operations and messages."""

    def __init__(self, channel: str, schemas: dict[str, Any]) -> None:
        self._channel = channel
        self._schemas = schemas
        self.messages: dict[str, Any] = {
            "BusJobResponseMessage": {
                "name": "BusJobResponseMessage",
                "title": "The answer to a job",
                "payload": {"$ref": _SCHEMAS.format(name="BusJobResponseMessage")},
            }
        }
        self.channels: dict[str, Any] = {
            _REPLIES: {
                "address": None,
                "title": "Requesters of jobs",
                "messages": {"BusJobResponseMessage": _message_ref("BusJobResponseMessage")},
            }
        }
        self.operations: dict[str, Any] = {}

    def add_worker(self, worker: GraphWorker) -> None:
        """Add the channel of a worker, and an operation for each of its jobs."""
        key = self._channel_key(worker.name)
        self.channels[key] = {
            "address": f"{self._channel}/{worker.name}",
            "title": "Everyone" if worker.kind == "everyone" else worker.name,
            "messages": {},
        }
        for job in worker.jobs:
            name = self._add_message(key, _key(f"{worker.name}.{job}"), _request(job), job)
            self.operations[_key(f"{worker.name}.{job}")] = {
                "action": "receive",
                "title": f"Do {job!r}",
                "channel": {"$ref": f"#/channels/{key}"},
                "messages": [{"$ref": f"#/channels/{key}/messages/{name}"}],
                "reply": {
                    "address": {"location": "$message.payload#/source"},
                    "channel": {"$ref": f"#/channels/{_REPLIES}"},
                    "messages": [{"$ref": f"#/channels/{_REPLIES}/messages/BusJobResponseMessage"}],
                },
            }

    def add_edge(self, edge: GraphEdge) -> None:
        """Add an operation for what a worker sends to another."""
        key = self._channel_key(edge.target)
        if key not in self.channels or not (edge.types or edge.jobs):
            return
        names = [self._add_message(key, _key(kind), _payload(kind), kind) for kind in edge.types]
        names += [
            self._add_message(key, _key(f"{edge.target}.{job}"), _request(job), job)
            for job in edge.jobs
        ]
        self.operations[_key(f"{edge.source}.to.{key}")] = {
            "action": "send",
            "title": f"{edge.source} to {edge.target}",
            "channel": {"$ref": f"#/channels/{key}"},
            "messages": [{"$ref": f"#/channels/{key}/messages/{name}"} for name in names],
        }

    def _add_message(self, channel: str, name: str, payload: dict[str, Any], title: str) -> str:
        self.messages.setdefault(name, {"name": name, "title": title, "payload": payload})
        self.channels[channel]["messages"][name] = _message_ref(name)
        return name

    @staticmethod
    def _channel_key(worker: str) -> str:
        return "everyone" if worker == "*" else _key(worker)


def _request(job: str) -> dict[str, Any]:
    return {
        "allOf": [
            {"$ref": _SCHEMAS.format(name="BusJobRequestMessage")},
            {"type": "object", "properties": {"job_name": {"const": job}}},
        ]
    }


def _payload(kind: str) -> dict[str, Any]:
    """The schema of a type: of pbus' own types the fields, of others what all have."""
    found = message_type(kind)
    if found is not None and found.__module__.startswith("pbus."):
        description = (found.__doc__ or "").partition("\n")[0]
    else:
        description = "A type of the project's own."
    return {
        "type": "object",
        "description": description,
        "required": ["type", "source"],
        "properties": {
            "type": {"const": kind},
            "source": {"type": "string"},
            "target": {"type": ["string", "null"]},
            "id": {"type": "string"},
            "time": {"type": "number"},
        },
    }


def _message_ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/messages/{name}"}


def _server(bus: BusSettings) -> dict[str, str]:
    parts = urlsplit(bus.url or "")
    host = parts.hostname or "localhost"
    return {
        "host": host if parts.port is None else f"{host}:{parts.port}",
        "protocol": _PROTOCOLS[bus.backend],
        "description": "The broker" if bus.url else "A broker that pbus starts",
    }


def _key(name: str) -> str:
    """A name as a key of the document may be: letters, digits, and . - _."""
    return _NO_KEY.sub("_", name)
