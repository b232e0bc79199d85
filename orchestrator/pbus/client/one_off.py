"""`pbus run`: one worker or program beside a project, with its environment and bus."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pbus.client.attachment import DEFAULT_FILE, Attachment, find_project
from pbus.client.status import read_status
from pbus.errors import (
    NothingRunningError,
    OrphanedProjectError,
    ProcessError,
    StrangeFileError,
)
from pbus.ids import new_token
from pbus.names import unknown_name
from pbus.observe import RUN_PREFIX
from pbus.process.broker_only import broker_only
from pbus.process.project.project import Project
from pbus.process.project.project_lock import token_of
from pbus.process.system.launch_plan import (
    FOREGROUND_VARIABLE,
    Launch,
    ProcessEnvironment,
    plan_launch,
)
from pbus.settings import PROJECT_VARIABLE, STATE_VARIABLE
from pbus.topology.load import load_topology
from pbus.topology.model import Topology, WorkerInstance

_OVER: Final = ("exited", "failed")  # states of workers that do not use their names
_OF_A_WORKER: Final = ("PBUS_WORKER", "PBUS_INCARNATION", "PBUS_REPLICA")


class OneOff(msgspec.Struct, frozen=True):
    """The project that a run joins.

    Attributes:
        environment: Of its processes.
        topology: As it is in its file now.
        taken: The names of the workers that run or are about to.
        is_alone: The broker was started for this run.
    """

    environment: ProcessEnvironment
    topology: Topology
    taken: frozenset[str] = frozenset()
    is_alone: bool = False


@contextlib.asynccontextmanager
async def joined(
    name: str | None, files: Sequence[Path], environ: Mapping[str, str]
) -> AsyncIterator[OneOff]:
    """Join a project as `find_project` finds it, or run its embedded broker meanwhile.

    Args:
        name: The name of a running project.
        files: The files of a topology; none where it was not named.
        environ: The values of ``${VAR}`` in it.

    Raises:
        NothingRunningError: There is neither a project nor a topology with a broker of its own.
        TopologyError: The topology is wrong.
        BusUnavailableError: The broker is not reached.
    """
    named = files or (DEFAULT_FILE,)
    try:
        attachment = find_project(name, files or None)
    except (StrangeFileError, OrphanedProjectError):
        raise
    except NothingRunningError:
        if name is not None or not named[0].exists():
            raise
        topology = load_topology(named, environ)
        async with broker_only(topology) as environment:
            yield OneOff(environment, topology, is_alone=True)
        return
    topology = load_topology(attachment.record.files if attachment.record else named, environ)
    async with attachment.opened() as bus:
        rows = (await read_status(bus, attachment.project)).rows
    taken = frozenset(row.name for row in rows if row.state not in _OVER)
    yield OneOff(_environment(attachment, topology), topology, taken)


def worker_launch(one_off: OneOff, name: str, environ: Mapping[str, str]) -> Launch:
    """The launch of a worker of the topology, under its own name.

    Of replicas named by their common name it is the first that does not run, or one more.

    Raises:
        UnknownNameError: The topology has no such worker.
        ProcessError: It runs already.
    """
    instance = _instance(one_off, name)
    if instance.name in one_off.taken:
        raise ProcessError(
            f"{instance.name} runs already, and only one process can have its name",
            hint=f"`pbus stop {instance.name}` first, and `pbus start {instance.name}` afterwards",
        )
    incarnation = f"{RUN_PREFIX}{new_token()}"
    added = {FOREGROUND_VARIABLE: "1"}
    return plan_launch(instance, one_off.environment, incarnation, environ, added)


def command_launch(one_off: OneOff, command: Sequence[str], environ: Mapping[str, str]) -> Launch:
    """The launch of a program in the current folder, with the project's own variables.

    `pbus.client.connect()` works in it.
    """
    around = one_off.environment
    inherited = {key: value for key, value in environ.items() if key not in _OF_A_WORKER}
    env = {
        **inherited,
        **one_off.topology.env,
        **around.bus.to_env(),
        "PBUS_SESSION": around.session,
        PROJECT_VARIABLE: around.project,
        STATE_VARIABLE: str(around.state),
        "PBUS_GUARD_TOKEN": around.guard_token,
    }
    return Launch(argv=tuple(command), env=env, cwd=Path(os.curdir))


def _environment(attachment: Attachment, topology: Topology) -> ProcessEnvironment:
    record = attachment.record
    project = Project.of(topology) if record is None else Project.of_record(record)
    return ProcessEnvironment(
        bus=attachment.bus,
        session=new_token() if record is None else record.session,
        project=attachment.project,
        file=topology.file,
        state=project.state_dir,
        guard_token="" if record is None else token_of(project),
        loop=topology.loop,
    )


def _instance(one_off: OneOff, name: str) -> WorkerInstance:
    topology = one_off.topology
    found = {one.name: one for one in topology.instances()}
    if name in found:
        return found[name]
    spec = topology.workers.get(name)
    if spec is None:
        raise unknown_name("worker", name, found)
    count = len(one_off.taken) + 1  # so many names cannot all be taken
    widened = msgspec.structs.replace(spec, replicas=max(spec.replicas or 1, count))
    return next(one for one in widened.instances() if one.name not in one_off.taken)
