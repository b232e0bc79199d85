"""pbus: workers on a message bus, in one process or many, under one roof.

Everything a program needs is importable from here; a name is loaded when it is first used, so
`import pbus` needs no driver and is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pbus.bus.base import WorkerBus as WorkerBus
    from pbus.bus.connect import connect as connect
    from pbus.bus.memory import AsyncQueueBus as AsyncQueueBus
    from pbus.bus.redis import RedisBus as RedisBus
    from pbus.bus.subscriber import BusSubscriber as BusSubscriber

_HOMES = {
    "pbus.bus": ("AsyncQueueBus", "BusSubscriber", "Tap", "TapMessage", "WorkerBus", "connect"),
    "pbus.bus.redis": ("RedisBus",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - made from the table above


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'pbus' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
