"""Command line and environment of a worker's process."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from pbus.process.system import path_json
from pbus.settings import (
    DRAIN_VARIABLE,
    GRACE_VARIABLE,
    PROJECT_VARIABLE,
    STATE_VARIABLE,
    BusSettings,
)
from pbus.topology.model import REPLICA_VARIABLE, Loop, WorkerInstance, WorkerSpec
from pbus.topology.policy.policies import LineProbe, StopSpec
from pbus.trace_context import TRACEPARENT_VARIABLE

SPEC_VARIABLE = "PBUS_SPEC_FD"
PROGRAM_WORKER = "pbus.process.stdio.program_worker:ProgramWorker"  # stands for a program
PIPECAT_VARIABLE = "PIPECAT_SETUP_FILES"  # names files that Pipecat loads when a runner starts
FOREGROUND_VARIABLE = "PBUS_FOREGROUND"  # set where Ctrl-C is the worker's own


class ProcessEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """The common environment of all workers of a project.

    Attributes:
        bus: Settings with the broker's URL and password; they reach children by environment only.
        file: The topology file, for importing worker classes.
        state: The project's state folder, by which a `pbus` in a worker finds its project.
        guard_token: Mark by which the guard finds processes that were not registered.
        loop: Event loop of child programs.
        env: Variables of all workers; those of a worker have them, too.
        preload: Modules that a zygote imports.
    """

    bus: BusSettings
    session: str
    project: str
    file: Path
    state: Path
    guard_token: str
    loop: Loop = "asyncio"
    env: dict[str, str] = msgspec.field(default_factory=dict)
    preload: tuple[str, ...] = ()


class WorkerLaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The worker that the child program hosts; passed as JSON in an inherited file.

    An environment variable is limited to 128 KiB.

    Attributes:
        worker: "module:Class".
        files: Files beside which the class is; see `topology.paths.import_path`.
        group: The worker that it is a replica of; else its own name.
        name: Its name; "" for the one that the environment gives.
        after: Others of the process that must be ready before it is started.
        members: All workers of the process, where it hosts several; this one is the first.
    """

    worker: str
    args: dict[str, Any]
    active: bool
    files: tuple[str, ...]
    loop: Loop = "asyncio"
    group: str = ""
    name: str = ""
    after: tuple[str, ...] = ()
    members: "tuple[WorkerLaunchSpec, ...]" = ()


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of one start of a worker's process.

    Attributes:
        spec: JSON of `WorkerLaunchSpec`, see SPEC_VARIABLE; None for a command.
        is_forkable: Whether a fork of a zygote may stand for an exec.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    spec: bytes | None = None
    is_forkable: bool = False


def plan_launch(
    instance: WorkerInstance,
    environment: ProcessEnvironment,
    incarnation: str,
    environ: Mapping[str, str],
    added: Mapping[str, str] = MappingProxyType({}),
) -> Launch:
    """Return the arguments of a worker's process.

    Args:
        instance: The worker.
        environment: Common to all workers.
        incarnation: The incarnation of the process.
        environ: Inherited environment variables, usually `os.environ`.
        added: Variables of this process alone.
    """
    spec = instance.spec
    env = {**_inherited(environ), **spec.env}
    env |= {
        **environment.bus.to_env(),
        **_stop_env(spec.stop),
        **added,
        "PBUS_WORKER": instance.name,
        "PBUS_SESSION": environment.session,
        "PBUS_INCARNATION": incarnation,
        PROJECT_VARIABLE: environment.project,
        STATE_VARIABLE: str(environment.state),
        "PBUS_GUARD_TOKEN": environment.guard_token,
    }
    if spec.pipecat:
        env[PIPECAT_VARIABLE] = _with_sidecar(env.get(PIPECAT_VARIABLE, ""))
    if spec.command is not None and not spec.is_hosted:
        return Launch(argv=spec.command, env=env, cwd=spec.working_dir)
    # The name is for readers of process lists; the child itself reads the environment.
    argv = (sys.executable, "-P", "-m", "pbus.process.child", instance.name)
    encoded = path_json.encode(launch_spec(spec, environment.file, environment.loop))
    return Launch(
        argv=argv,
        env=env,
        cwd=spec.working_dir,
        spec=encoded,
        is_forkable=_is_forkable(spec, environment),
    )


def zygote_env(environment: ProcessEnvironment, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a zygote: what that of all workers begins with."""
    token = {"PBUS_GUARD_TOKEN": environment.guard_token}
    return {**_inherited(environ), **environment.env, **token}


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    outer = {
        SPEC_VARIABLE,
        REPLICA_VARIABLE,
        GRACE_VARIABLE,
        DRAIN_VARIABLE,
        TRACEPARENT_VARIABLE,  # or all that a worker sends for ever would be one trace
    }  # of a pbus that this one runs in
    inherited = {name: value for name, value in environ.items() if name not in outer}
    return {"PYTHONUNBUFFERED": "1", **inherited}


def _is_forkable(spec: WorkerSpec, environment: ProcessEnvironment) -> bool:
    if spec.start != "fork" or sys.platform != "linux":
        return False
    # Modules that were preloaded from beside the topology may be others beside another file.
    files = [spec.file, *(one.file for one in spec.members)]
    own = {file.parent for file in files if file is not None}
    return not environment.preload or own <= {environment.file.parent}


def _stop_env(spec: StopSpec) -> dict[str, str]:
    """The variables by which a runner knows how a signal ends it, where that is not as usual."""
    grace = {} if spec.grace_s is None else {GRACE_VARIABLE: str(spec.grace_s)}
    return grace if spec.drain else {**grace, DRAIN_VARIABLE: "0"}


def _with_sidecar(files: str) -> str:
    """The setup files of Pipecat that a user has, and that of pbus behind them."""
    ours = str(Path(__file__).parents[2] / "compat" / "pipecat" / "setup_file.py")
    return os.pathsep.join([
        *(file for file in files.split(os.pathsep) if file not in {"", ours}),
        ours,
    ])


def launch_spec(spec: WorkerSpec, file: Path, loop: Loop = "asyncio") -> WorkerLaunchSpec:
    """Return the spec of a hosted worker of a topology file, and of those in its process."""
    members = tuple(
        WorkerLaunchSpec(
            worker=one.worker,
            args=one.args,
            active=one.active,
            files=_files(one.file, file),
            group=one.group,
            name=one.name,
            after=one.after,
        )
        for one in spec.members
    )
    return WorkerLaunchSpec(
        worker=spec.worker or PROGRAM_WORKER,
        args=spec.args if spec.command is None else _program_args(spec, spec.command),
        active=spec.active,
        files=_files(spec.file, file),
        loop=loop,
        group=spec.name,
        members=members,
    )


def _program_args(spec: WorkerSpec, command: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of the worker that stands for a program."""
    return {
        "command": list(command),
        "waits_ready": spec.ready is not None and isinstance(spec.ready.probe, LineProbe),
        "grace_s": spec.stop.grace_s,
        "stop_signal": spec.stop.signal,
    }


def _files(own: Path | None, topology: Path) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(one) for one in (own or topology, topology)))
