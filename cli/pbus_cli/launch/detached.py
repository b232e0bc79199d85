"""Starting a supervisor in the background, and hearing how that went."""

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from pbus.client.control.project_changes import remote_error
from pbus.errors import ProcessError
from pbus.process.project.project import Project
from pbus.process.system.regular_files import opener
from pbus.topology import Topology
from pbus.topology.selection import Selection

_START_S: Final = 60.0  # the broker included; on a loaded machine a start takes seconds


def start(topology: Topology, selection: Selection, *, is_watching: bool = False) -> int:
    """Start a detached supervisor and return its pid once its bus is up.

    Args:
        topology: The topology.
        selection: The processes to run.
        is_watching: Whether it restarts classes whose files change.

    Raises:
        PbusError: What the supervisor says went wrong, as it would have raised it here.
    """
    project = Project.of(topology)
    project.make_state_dir()
    reading, writing = os.pipe()
    command = [
        sys.executable, "-P", "-m", "pbus.process.daemon", *map(str, topology.files),
        "--status-fd", str(writing), "--selection", msgspec.json.encode(selection).decode(),
        *(["--watch"] if is_watching else []),
    ]  # fmt: skip
    log = project.service_log_path("supervisor")
    with open(log, "ab", opener=opener) as output, os.fdopen(reading, "rb") as status:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(writing,),
                start_new_session=True,
            )
        finally:
            os.close(writing)
        return _read_status(status, process, log)


def _read_status(status: IO[bytes], process: "subprocess.Popen[bytes]", log: Path) -> int:
    line = b""
    ready, _, _ = select.select([status], [], [], _START_S)
    if ready:
        line = status.readline()
    try:
        said: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        how = "says nothing" if process.returncode is None else f"ended ({process.returncode})"
        problem = f"the supervisor {how} before its bus was up"
        hint = f"see {log}; `pbus ps` tells whether it comes up after all, `pbus down` ends it"
        raise ProcessError(problem, hint=hint) from None
    if said.get("ok"):
        return int(said["pid"])
    raise remote_error(str(said.get("kind")), str(said.get("message")), said.get("hint"))
