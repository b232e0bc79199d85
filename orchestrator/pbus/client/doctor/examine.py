"""From a project's name or file to all findings about it and this machine."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from pbus.client.attachment import DEFAULT_FILE, Attachment, find_project
from pbus.client.doctor.broker import broker_findings
from pbus.client.doctor.findings import Finding, error, ok, warning
from pbus.client.doctor.leftovers import machine_leftovers, running_here
from pbus.client.doctor.machine import folders, open_files, packages, versions
from pbus.errors import (
    AmbiguousProjectError,
    NothingRunningError,
    OrphanedProjectError,
    PbusError,
    StrangeFileError,
    TopologyError,
    UnseenProjectError,
)
from pbus.process.project.project import Project
from pbus.topology.load import load_topology
from pbus.topology.model import Topology
from pbus.topology.policy.shared_process import processes_of


async def examine(
    name: str | None, files: Sequence[Path], environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Finding]:
    """Look at everything, with and without a running project; findings come as they are made.

    A broker is connected to under the rules of `find_project`: a file that was only found, and was
    not started here with its broker, is not enough.

    Args:
        name: The name of a running project.
        files: The files of a topology; none where it was not named.
        environ: The values of ``${VAR}`` in a topology.
    """
    for finding in versions():
        yield finding
    attachment, about_project = _project(name, files)
    topology, about_file = _topology(attachment, files, environ)
    for finding in (*packages(topology), *open_files(topology)):
        yield finding
    for finding in (*folders(_of(attachment, topology)), *about_file, *about_project):
        yield finding
    for finding in (*machine_leftovers(), *running_here(topology)):
        yield finding
    if attachment is not None:
        async for finding in broker_findings(attachment, topology):
            yield finding


def _of(attachment: Attachment | None, topology: Topology | None) -> Project | None:
    if attachment is not None and attachment.record is not None:
        return Project.of_record(attachment.record)
    return None if topology is None else Project.of(topology)


def _project(name: str | None, files: Sequence[Path]) -> tuple[Attachment | None, list[Finding]]:
    """The project whose broker may be asked, and what is to be said about it."""
    try:
        attachment = find_project(name, files or None)
    except (TopologyError, OrphanedProjectError):
        return None, []  # told by the topology's own check, or as leftovers
    except PbusError as problem:
        return None, [_without_project(problem, is_named=name is not None)]
    if attachment.record is None:
        text = f"{attachment.project} does not run on this machine, its broker is asked"
    else:
        text = f"{attachment.project} runs here, supervisor pid {attachment.record.pid}"
    return attachment, [ok("project", text)]


def _without_project(problem: PbusError, *, is_named: bool) -> Finding:
    match problem:
        case StrangeFileError() | AmbiguousProjectError():
            hint = problem.hint or "name one: -p NAME"
            return warning("project", f"{problem.message}; no broker was asked", hint)
        case UnseenProjectError():
            return ok("project", f"{problem.message}: no broker to ask")
        case NothingRunningError() if not is_named:
            return ok("project", "nothing runs here, so no broker was asked: `pbus up` starts it")
    return error("project", problem.message, problem.hint)


def _topology(
    attachment: Attachment | None, files: Sequence[Path], environ: Mapping[str, str]
) -> tuple[Topology | None, list[Finding]]:
    """The topology as its file has it now, or what is wrong with it."""
    found: Sequence[Path] = files or (DEFAULT_FILE,)
    if attachment is not None and attachment.record is not None:
        found = attachment.record.files
    elif not files and not DEFAULT_FILE.exists():
        return None, []
    path = " ".join(map(str, found))
    try:
        topology = load_topology(found, environ)
    except TopologyError as problem:
        hint = problem.hint or f"mend the file; `pbus validate {path}` shows the same"
        return None, [error("topology", problem.message, hint)]
    return topology, [
        ok("topology", f"{path} is right, with {len(processes_of(topology.instances()))} processes")
    ]
