"""The program of a worker loads nothing that only its supervisor needs, nor an SDK out of use."""

import subprocess
import sys

SUPERVISORS = {"psutil", "importlib.resources", "tempfile", "shutil", "yaml", "typer", "rich"}
SDK = "opentelemetry.sdk.metrics"
MAKE_BUS = """
import sys, pbus.process.child
from pbus.settings import BusSettings
bus = pbus.process.child.make_bus(BusSettings(url="redis://127.0.0.1:1"))
print(*sys.modules)
"""
TURN_METRICS_ON = """
import opentelemetry.metrics, opentelemetry.sdk.metrics
from redis.observability import OTelConfig, get_observability_instance
provider = opentelemetry.sdk.metrics.MeterProvider()
opentelemetry.metrics.set_meter_provider(provider)
instance = get_observability_instance()
instance.init(OTelConfig())
assert instance.get_provider_manager().get_meter_provider() is provider
print("counted")
"""
HOLD_A_THREAD = """
import threading
held = threading.Event()
threading.Thread(target=held.wait, daemon=True).start()
"""


def printed(code: str) -> list[str]:
    """The words that a program writes."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.split()


def test_child_loads_no_module_of_the_supervisor() -> None:
    """Each start of a worker pays for what its program imports."""
    loaded = set(printed("import sys, pbus.process.child; print(*sys.modules)"))

    assert "pbus.runner" in loaded
    assert set() == loaded & SUPERVISORS


def test_driver_loads_no_sdk_before_its_metrics_are_turned_on() -> None:
    """Each start would pay for what redis-py only looks for; its metrics work nevertheless."""
    loaded = printed(MAKE_BUS + TURN_METRICS_ON)

    assert "redis.asyncio" in loaded
    assert SDK not in loaded
    assert "counted" == loaded[-1]


def test_drivers_are_loaded_early_without_the_sdk() -> None:
    """A supervisor does so before it has threads; a bus in memory needs none."""
    load = "import sys\nfrom pbus.bus.connect import load_driver as load\n"

    none = printed(load + "load('memory'); print(*sys.modules)")
    both = printed(load + "load('redis'); load('pgmq'); print(*sys.modules)")

    assert set() == {"redis", "asyncpg"} & {*none}
    assert {"pbus.bus.redis", "pbus.bus.pgmq", "redis", "asyncpg"} <= {*both}
    assert SDK not in both


def test_missing_drivers_are_named_early() -> None:
    """The error is that of connecting."""
    code = "import sys\nfrom pbus.bus.connect import load_driver as load\n"
    for backend, driver in (("redis", "redis"), ("pgmq", "asyncpg")):
        code += f"sys.modules['{driver}'] = None\ntry:\n    load('{backend}')\n"
        code += "except Exception as error:\n    print(type(error).__name__, error.hint or error)\n"

    assert 2 == printed(code).count("BackendMissingError")


def test_sdk_is_not_hidden_from_other_threads() -> None:
    """One of them might be importing it."""
    assert SDK in printed(HOLD_A_THREAD + MAKE_BUS)


def test_loaded_sdk_stays() -> None:
    """A program that has it goes on with the same module."""
    code = f"import {SDK} as sdk\n{MAKE_BUS}\nprint(sys.modules['{SDK}'] is sdk)"

    assert "True" == printed(code)[-1]
