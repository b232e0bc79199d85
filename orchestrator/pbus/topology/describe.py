"""A topology as plain values for people and scripts, secrets masked.

Masked are values by origin (the environment, `env`, `env_file`, the tag `!secret`) and, for those
that stand in the file itself, by name.
"""

import re
from typing import Any, TypeAlias

import msgspec

from pbus.settings import BusSettings
from pbus.topology.model import Topology, WorkerSpec
from pbus.topology.policy.policies import (
    BusProbe,
    ExecProbe,
    HealthSpec,
    HttpProbe,
    LineProbe,
    LogProbe,
    NotifyProbe,
    Probe,
    ReadySpec,
    RestartSpec,
    StopSpec,
    TcpProbe,
)
from pbus.topology.schema import BusSection
from pbus.urls import mask_url

Path: TypeAlias = tuple[str, ...]  # of keys, from the top of the file
Secrets: TypeAlias = frozenset[Path]

_MASK = "***"
_SECRET_NAME = re.compile(r"key|token|secret|passw|passphrase|credential", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_OPTION = re.compile(r"(-{0,2}[\w-]+)=(.*)", re.DOTALL)
_PLAIN_PROBES = {NotifyProbe: "notify", LineProbe: "line"}


def describe(topology: Topology) -> dict[str, Any]:
    """The output of `pbus validate --json`: JSON values only, always the same keys."""
    return {
        "name": topology.name,
        "file": str(topology.file),
        "files": [str(file) for file in (*topology.files, *topology.parts)],
        "folder": str(topology.folder),
        "loop": topology.loop,
        "preload": list(topology.preload),
        "metrics": None if topology.metrics is None else _plain(topology.metrics),
        "history": _plain(topology.history),
        "bus": _bus(topology.bus),
        "workers": [_worker(spec, topology.secrets) for spec in topology.workers.values()],
    }


def _bus(bus: BusSettings) -> dict[str, Any]:
    keys = bus.to_keys()
    shown = {key: keys[key] for key in BusSection.__struct_fields__}
    return {
        **shown,
        "url": mask_url(bus.url) if bus.url else None,
        "key": _MASK if bus.key else None,
    }


def _worker(spec: WorkerSpec, secrets: Secrets) -> dict[str, Any]:
    at = ("workers", spec.name)
    return {
        "name": spec.name,
        "worker": spec.worker,
        "command": _masked_command(spec.command, secrets, at) if spec.command else None,
        "stdio": spec.stdio,
        "joins": spec.joins,
        "pipecat": spec.pipecat,
        "args": _masked(spec.args, secrets, (*at, "args")),
        "env": {name: _MASK if value else value for name, value in spec.env.items()},
        "working_dir": str(spec.working_dir),
        "active": spec.active,
        "replicas": spec.replicas,
        "depends_on": {one.worker: _plain(one, "worker") for one in spec.depends_on},
        "ready": _ready(spec.ready, secrets, (*at, "ready")),
        "health": _health(spec.health, secrets, (*at, "health")),
        "restart": _restart(spec.restart),
        "success_exit_codes": sorted(spec.success_exit_codes),
        "on_exit": spec.on_exit,
        "limits": {
            "memory": spec.limits.memory_bytes,
            "age": spec.limits.age_s,
            "jobs": spec.limits.jobs,
        },
        "start": spec.start,
        "stop": _stop(spec.stop, secrets, (*at, "stop")),
        "watch": None if spec.watch is None else [str(path) for path in spec.watch],
        "profiles": sorted(spec.profiles),
        "sends_to": list(spec.sends_to),
        "process": spec.process,
        "instances": [instance.name for instance in spec.instances()],
    }


def _plain(value: msgspec.Struct, *left_out: str) -> dict[str, Any]:
    """A value's fields as JSON has them."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return {key: one for key, one in fields.items() if key not in left_out}


def _ready(spec: ReadySpec | None, secrets: Secrets, at: Path) -> dict[str, Any] | None:
    return None if spec is None else {**_probe(spec.probe, secrets, at), "timeout": spec.timeout_s}


def _health(spec: HealthSpec | None, secrets: Secrets, at: Path) -> dict[str, Any] | None:
    if spec is None:
        return None
    return {
        **_probe(spec.probe, secrets, at),
        **_bus_limits(spec.probe),
        "every": spec.every_s,
        "timeout": spec.timeout_s,
        "failures": spec.failures,
        "start_period": spec.start_period_s,
        "restart": spec.restart,
    }


def _probe(probe: Probe, secrets: Secrets, at: Path) -> dict[str, Any]:
    match probe:
        case LogProbe(pattern):
            return {"log": _masked(pattern, secrets, (*at, "log"))}
        case HttpProbe(url):
            return {"http": _masked(url, secrets, (*at, "http"))}
        case TcpProbe(host, port):
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            return {"tcp": _masked(address, secrets, (*at, "tcp"))}
        case ExecProbe(command):
            return {"exec": _masked_command(command, secrets, at, "exec")}
    return {_PLAIN_PROBES.get(type(probe), "bus"): True}


def _bus_limits(probe: Probe) -> dict[str, Any]:
    if not isinstance(probe, BusProbe):
        return {}
    return {"max_silence": probe.max_silence_s, "max_handler": probe.max_handler_s}


def _restart(spec: RestartSpec) -> dict[str, Any]:
    return {
        "policy": spec.policy,
        "backoff": {
            "initial": spec.initial_s,
            "factor": spec.factor,
            "max": spec.max_s,
            "jitter": spec.jitter,
        },
        "max": spec.max_exits,
        "within": spec.within_s,
    }


def _stop(spec: StopSpec, secrets: Secrets, at: Path) -> dict[str, Any]:
    return {
        "drain": spec.drain,
        "grace": spec.grace_s,
        "signal": spec.signal,
        "command": _masked_command(spec.command, secrets, at) if spec.command else None,
    }


def _masked(value: Any, secrets: Secrets, path: Path) -> Any:
    """The value with values of variables, of secret names, and passwords of URLs masked."""
    if path in secrets:
        return _MASK
    if isinstance(value, dict):
        return {key: _masked_item(key, item, secrets, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, secrets, (*path, str(at))) for at, item in enumerate(value)]
    return mask_url(value) if isinstance(value, str) and _URL.fullmatch(value) else value


def _masked_item(key: str, value: Any, secrets: Secrets, path: Path) -> Any:
    is_shown = value is None or value == "" or isinstance(value, bool)
    if _SECRET_NAME.search(key) and not is_shown:
        return _MASK
    return _masked(value, secrets, path)


def _masked_command(
    words: tuple[str, ...], secrets: Secrets, at: Path, key: str = "command"
) -> list[str]:
    """The words without the values of `--password VALUE`, `--token=VALUE` and `API_KEY=VALUE`."""
    shown: list[str] = []
    is_secret_next = False
    for number, word in enumerate(words):
        path = (*at, key, str(number))
        option = _OPTION.fullmatch(word)
        if is_secret_next and not word.startswith("-"):
            shown.append(_MASK)
        elif option:
            shown.append(f"{option[1]}={_masked_item(option[1], option[2], secrets, path)}")
        else:
            shown.append(_masked(word, secrets, path))
        is_secret_next = word.startswith("-") and not option and bool(_SECRET_NAME.search(word))
    return shown
