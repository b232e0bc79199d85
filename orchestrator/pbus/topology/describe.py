"""A topology as plain values for people and scripts, secrets masked."""

import re
from typing import Any

from pbus.topology.model import BusSpec, DeliverySpec, Topology, WorkerSpec
from pbus.urls import mask_url

_MASK = "***"
_SECRET_NAME = re.compile(r"key|token|secret|passw|passphrase|credential", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_OPTION = re.compile(r"(-{0,2}[\w-]+)=(.*)", re.DOTALL)


def describe(topology: Topology) -> dict[str, Any]:
    """What `pbus validate --json` prints: JSON values only, the same keys every time."""
    return {
        "name": topology.name,
        "file": str(topology.file),
        "folder": str(topology.folder),
        "loop": topology.loop,
        "bus": _bus(topology.bus),
        "workers": [_worker(spec) for spec in topology.workers.values()],
    }


def _bus(bus: BusSpec) -> dict[str, Any]:
    return {
        "backend": bus.backend,
        "url": mask_url(bus.url) if bus.url else None,
        "channel": bus.channel,
        "max_message_bytes": bus.max_message_bytes,
        "encoding": bus.encoding,
        **_delivery(bus.delivery),
    }


def _delivery(delivery: DeliverySpec) -> dict[str, Any]:
    return {
        "delivery": delivery.mode,
        "max_backlog": delivery.max_backlog,
        "when_full": delivery.when_full,
        "max_attempts": delivery.max_attempts,
        "max_crash_attempts": delivery.max_crash_attempts,
    }


def _worker(spec: WorkerSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "worker": spec.worker,
        "command": _masked_command(spec.command) if spec.command else None,
        "joins": spec.joins,
        "args": _masked(spec.args),
        "env": _masked(spec.env),
        "working_dir": str(spec.working_dir),
        "active": spec.active,
        "replicas": spec.replicas,
        "restart": spec.restart,
        "instances": [instance.name for instance in spec.instances()],
    }


def _masked(value: Any) -> Any:
    """The value without what stands under a secret's name, at any depth, and without URL passwords."""
    if isinstance(value, dict):
        return {key: _masked_item(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return mask_url(value) if isinstance(value, str) and _URL.fullmatch(value) else value


def _masked_item(key: str, value: Any) -> Any:
    is_shown = value is None or value == "" or isinstance(value, bool)
    return _MASK if _SECRET_NAME.search(key) and not is_shown else _masked(value)


def _masked_command(words: tuple[str, ...]) -> list[str]:
    """The words without the values of `--password VALUE`, `--token=VALUE` and `API_KEY=VALUE`."""
    shown: list[str] = []
    is_secret_next = False
    for word in words:
        option = _OPTION.fullmatch(word)
        if is_secret_next and not word.startswith("-"):
            shown.append(_MASK)
        elif option:
            shown.append(f"{option[1]}={_masked_item(option[1], option[2])}")
        else:
            shown.append(_masked(word))
        is_secret_next = word.startswith("-") and not option and bool(_SECRET_NAME.search(word))
    return shown
