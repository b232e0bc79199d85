"""The program of a worker process: ``python -P -m pbus.process.child``.

The supervisor starts it and configures it by environment variables. Logging is set up here, since
this process is pbus' own.
"""

import io
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from pbus.bus.connect import make_bus
from pbus.bus.otel import trace_if_configured
from pbus.errors import HandlerDefinitionError, PbusError, ProgramStartError, WorkerLoadError
from pbus.process.hosting import Hosting
from pbus.process.supervisor.worker.restart_policy import UNLOADABLE
from pbus.process.system import path_json
from pbus.process.system.event_loop import run_on
from pbus.process.system.inherited_signals import undo_signals
from pbus.process.system.launch_plan import FOREGROUND_VARIABLE, SPEC_VARIABLE, WorkerLaunchSpec
from pbus.process.worker_loader import load_worker
from pbus.runner import WorkerRunner
from pbus.runner.stack_dump import stacks_on_request
from pbus.settings import BusSettings
from pbus.topology.paths import import_path

LOG_LEVEL_VARIABLE = "PBUS_LOG_LEVEL"

_LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"  # the supervisor adds the time


def main() -> int:
    """Host the worker until it has ended; returns 1 after an error, UNLOADABLE without a class."""
    undo_signals()
    _write_utf8()
    try:
        _log_to_stderr(os.environ.get(LOG_LEVEL_VARIABLE, "INFO"))
        with os.fdopen(int(os.environ.pop(SPEC_VARIABLE)), "rb") as file:
            spec = path_json.decode(file.read(), WorkerLaunchSpec)
        files = [file for one in (spec, *spec.members) for file in one.files]
        sys.path += import_path(*map(Path, files))
        with stacks_on_request():  # while it imports the class, too
            return run_on(spec.loop, host(spec, os.environ))
    except PbusError as error:
        if error.__cause__ is not None:  # the author of the worker needs the traceback
            traceback.print_exception(error.__cause__)
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - of this program, to its log
        is_final = isinstance(error, WorkerLoadError) and error.is_final
        if is_final or isinstance(error, HandlerDefinitionError | ProgramStartError):
            return UNLOADABLE
    except Exception:  # noqa: BLE001 - the last resort
        traceback.print_exc()
    return 1


def _write_utf8() -> None:
    """Write UTF-8 in any locale: the supervisor reads it, and a print must not end a worker."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


async def host(spec: WorkerLaunchSpec, environ: Mapping[str, str]) -> int:
    """Run the workers of this process; returns the exit code."""
    specs = {one.name: one for one in spec.members} or {environ["PBUS_WORKER"]: spec}
    workers = [(load_worker(one, name), one.after) for name, one in specs.items()]
    declared = {name for one, each in specs.items() for name in (one, each.group)}
    settings = BusSettings.from_env(environ).declaring(*declared)
    bus = make_bus(settings, incarnation=environ["PBUS_INCARNATION"])
    trace_if_configured(bus, environ)
    # A supervisor handles Ctrl-C: it sends a message, then SIGTERM.
    is_in_foreground = os.environ.pop(FOREGROUND_VARIABLE, None) is not None
    runner = WorkerRunner(
        bus=bus,
        session=environ["PBUS_SESSION"],
        handle_sigint=is_in_foreground,
        handle_sigterm=True,
        start_timeout=None,  # the supervisor reached the broker; if it is away now, it comes back
    )
    return await Hosting(runner, workers).run()


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger().setLevel(level.upper())
    except ValueError:
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger(__name__).warning("%s=%r is no level", LOG_LEVEL_VARIABLE, level)


if __name__ == "__main__":
    sys.exit(main())
