"""The workers that a request wants: those of the edited file, or other numbers of replicas."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from pbus.errors import ControlRefusedError
from pbus.process.supervisor.changes.applied import Applied
from pbus.process.system import path_json
from pbus.topology.key_types import MAX_REPLICAS
from pbus.topology.model import Topology, WorkerInstance
from pbus.topology.policy.shared_process import processes_of
from pbus.topology.selection import Selection, select


class UpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The wish of `pbus up` of a project that runs; passed as a file in its state folder.

    Attributes:
        files: The topology, in order.
        environ: The values of variables in it.
        selection: The processes that are to run.
        is_watching: A change of Python files restarts classes, too.
    """

    files: tuple[str, ...]
    environ: dict[str, str]
    selection: Selection
    is_watching: bool = False


class Wanted(msgspec.Struct, frozen=True):
    """The aim of a plan.

    Attributes:
        applied: The applied topology when the plan is carried out.
        instances: The processes that run then.
        is_of_file: It comes from the topology: queues of workers that are not in it are removed.
    """

    applied: Applied
    instances: Sequence[WorkerInstance]
    is_of_file: bool


def write_request(state_dir: Path, request_id: str, request: UpRequest) -> Path:
    """Write a request for the supervisor, which this user alone can read; returns its path."""
    path = _request_path(state_dir, request_id)
    path.touch(mode=0o600)
    path.write_bytes(path_json.encode(request))
    return path


def read_request(state_dir: Path, request_id: str) -> UpRequest:
    """Read a request.

    Raises:
        ControlRefusedError: There is none of that id, or it is no request.
    """
    path = _request_path(state_dir, Path(request_id).name)
    try:
        return path_json.decode(path.read_bytes(), UpRequest)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ControlRefusedError(f"the request {path.name} cannot be read: {error}") from None


def _request_path(state_dir: Path, request_id: str) -> Path:
    return state_dir / f"up-{request_id}.json"


def wanted_of_file(
    request: UpRequest, topology: Topology, before: Applied, present: Iterable[WorkerInstance]
) -> Wanted:
    """Return what the edited file wants.

    Args:
        request: The request.
        topology: The edited file.
        before: What is applied now. Its profiles stay chosen, its scaled replicas do not.
        present: The workers that run; where the request names some, the others are left alone.

    Raises:
        TopologyError: A name or a profile of the selection is not in the topology.
    """
    profiles = request.selection.profiles | before.selection.profiles & _profiles_of(topology)
    selection = msgspec.structs.replace(request.selection, profiles=profiles)
    instances = processes_of(select(topology, selection))
    if selection.only:
        instances += _others(topology, instances, present)
        only = before.selection.only and before.selection.only | selection.only
        selection = msgspec.structs.replace(selection, only=only)
    applied = Applied(
        topology=topology,
        selection=selection,
        environ=request.environ,
        is_watching=request.is_watching or before.is_watching,
    )
    return Wanted(applied, instances, is_of_file=True)


def _profiles_of(topology: Topology) -> frozenset[str]:
    return frozenset(one for spec in topology.workers.values() for one in spec.profiles)


def _others(
    topology: Topology, chosen: Iterable[WorkerInstance], present: Iterable[WorkerInstance]
) -> list[WorkerInstance]:
    """The workers that run and are not meant; a replica is, where all of the file are chosen."""
    names = {one.name for one in chosen}
    whole = {
        name
        for name, spec in topology.workers.items()
        if names.issuperset(one.name for one in spec.instances())
    }
    return [one for one in present if one.name not in names and one.spec.name not in whole]


def wanted_of_scale(
    scale: Mapping[str, int], before: Applied, present: Iterable[WorkerInstance]
) -> Wanted:
    """Return what other numbers of replicas want.

    Args:
        scale: The numbers by worker.
        before: What is applied now.
        present: The workers that run; those that stay are left alone.

    Raises:
        ControlRefusedError: There is no such worker, it has no replicas, or not so many.
    """
    workers = before.topology.workers
    for name, count in scale.items():
        _check_scale(before.topology, name, count)
    here = {one.name: one for one in present}
    instances = [one for one in here.values() if one.spec.name not in scale]
    for name, count in scale.items():
        spec = msgspec.structs.replace(workers[name], replicas=count)
        instances += [here.get(one.name, one) for one in spec.instances()]
    scaled = {**before.scaled, **scale}
    applied = msgspec.structs.replace(before, scaled=scaled)
    return Wanted(applied, instances, is_of_file=False)


def _check_scale(topology: Topology, name: str, count: int) -> None:
    if name not in topology.workers:
        raise ControlRefusedError(f"no worker is named {name!r}")
    process = topology.workers[name].process
    if process is not None:
        raise ControlRefusedError(
            f"{name} shares the process {process} with others, which have as many replicas",
            hint=f"change `replicas` of all of them in {topology.file}, and apply that by `pbus up`",
        )
    if topology.workers[name].replicas is None:
        raise ControlRefusedError(
            f"{name} has no replicas: it is one process without a number in its name",
            hint=f"give it `replicas: 1` in {topology.file}, and apply that by `pbus up`",
        )
    if not 1 <= count <= MAX_REPLICAS:
        raise ControlRefusedError(
            f"{name}={count}: expected a number from 1 to {MAX_REPLICAS}",
            hint=f"`pbus stop {name}` stops all of them" if count == 0 else None,
        )
