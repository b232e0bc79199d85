"""A supervisor without a terminal: ``python -P -m pbus.process.daemon FILE... --status-fd N``.

It writes one line of JSON to that descriptor, a `DaemonStatus`, when the bus is up or the start has
failed.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec

from pbus.bus.connect import load_driver
from pbus.errors import PbusError
from pbus.process.project.project import Project
from pbus.process.project.supervisor_log import SupervisorLogHandler
from pbus.process.supervisor.supervisor import Supervisor
from pbus.process.supervisor_events import (
    BrokerLost,
    BrokerReady,
    Event,
    Exited,
    GaveUp,
    SessionEnded,
    Started,
    StateChanged,
    Stopped,
)
from pbus.process.system import path_json, regular_files
from pbus.process.system.event_loop import run_patiently
from pbus.process.system.inherited_signals import undo_signals
from pbus.topology.load import load_topology
from pbus.topology.selection import Selection

logger = logging.getLogger("pbus.process.daemon")  # run as a program, __name__ says nothing


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of the start.

    Attributes:
        pid: The daemon's, after a success.
        message: The error; with its hint, if any, and the name of its class as kind.
    """

    ok: bool
    pid: int | None = None
    session: str | None = None
    message: str | None = None
    hint: str | None = None
    kind: str | None = None


def main() -> int:
    """Load, detach, supervise."""
    undo_signals()
    arguments = _parse_arguments()
    report = StatusPipe(arguments.status_fd)
    try:
        topology = load_topology(arguments.files, os.environ)
        load_driver(topology.bus.backend)
        project = Project.of(topology)
        project.make_state_dir()
        _detach(project.service_log_path("supervisor"))
        supervisor = Supervisor(
            topology,
            project,
            selection=msgspec.json.decode(arguments.selection, type=Selection),
            is_watching=arguments.watch,
            session=arguments.session,
        )
        return run_patiently(_run(supervisor, report))
    except PbusError as error:
        logger.error("%s", error)  # noqa: TRY400 - not a bug
        report.failed(error)
    except Exception as error:
        logger.exception("ended by a bug in pbus")
        report.failed(error)
    return 1


class StatusPipe:
    """Writes the result of the start, once."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def started(self, session: str) -> None:
        """Report that the bus is up."""
        self._write(DaemonStatus(ok=True, pid=os.getpid(), session=session))

    def failed(self, error: BaseException) -> None:
        """Report that the start has failed."""
        message = error.message if isinstance(error, PbusError) else str(error)
        hint = error.hint if isinstance(error, PbusError) else None
        self._write(DaemonStatus(ok=False, message=message, hint=hint, kind=type(error).__name__))

    def _write(self, status: DaemonStatus) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        # The starter may have gone meanwhile.
        with contextlib.suppress(OSError), os.fdopen(descriptor, "wb") as pipe:
            pipe.write(path_json.encode(status) + b"\n")


async def _run(supervisor: Supervisor, report: StatusPipe) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.request_stop, number.name)
    supervisor.listen(_log_event)

    def report_started(event: Event) -> None:
        if isinstance(event, BrokerReady):
            report.started(supervisor.session)

    supervisor.listen(report_started)
    return await supervisor.run()


def _log_event(event: Event) -> None:
    if isinstance(event, GaveUp | BrokerLost):
        logger.warning("%s", event)
    elif isinstance(event, BrokerReady | Started | Exited | StateChanged | SessionEnded | Stopped):
        logger.info("%s", event)


def _detach(log: Path) -> None:
    """Leave the terminal: a new session, no input, all output to the log."""
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    for opened, descriptors in (
        (os.open(os.devnull, os.O_RDONLY), (0,)),
        (regular_files.opener(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), (1, 2)),
    ):
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)
    _log_to(log)


def _log_to(path: Path) -> None:
    logging.getLogger().addHandler(SupervisorLogHandler(path))
    logging.getLogger().setLevel(logging.INFO)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pbus.process.daemon")
    parser.add_argument("files", type=Path, nargs="+", help="the topology")
    parser.add_argument("--selection", default="{}", help="the processes to run, as JSON")
    parser.add_argument("--watch", action="store_true", help="restart classes whose files change")
    parser.add_argument("--session", help="shared with other supervisors")
    parser.add_argument("--status-fd", type=int, help="where to write the result of the start")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
