"""Changes of a running project: the plan shown, carried out, and told worker by worker."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from pbus.client import Client, ControlResult
from pbus.client.attachment import Attachment, attachment_of, refuse_unseen
from pbus.client.control.project_changes import PlannedChanges
from pbus.client.control.worker_control import check_results
from pbus.errors import ControlRefusedError
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.process.supervisor.changes.plan import Change, Plan, make_plan
from pbus.process.supervisor.changes.wanted import UpRequest
from pbus.topology import Topology
from pbus.topology.selection import Selection, select
from pbus_cli.call.attach import call
from pbus_cli.terminal import console
from pbus_cli.views.plan_lines import plan_lines

PLANNED: Final = 10  # the exit code of --dry-run where something is to be done
_DONE: Final = {
    "add": "was added", "remove": "was removed", "restart": "was restarted",
    "update": "was updated", "start": "was started",
}  # fmt: skip


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How a plan is shown and carried out.

    Attributes:
        action: The verb, for errors.
        timeout_s: Seconds until giving up.
        is_dry: Only show the plan.
        as_json: Print JSON.
    """

    action: str
    timeout_s: float
    is_dry: bool = False
    as_json: bool = False


def apply_or_show(
    topology: Topology,
    selection: Selection,
    record: ProjectRecord | None,
    how: How,
    *,
    is_watching: bool,
) -> int:
    """Apply an edited topology to the project that runs; returns the exit code.

    Args:
        topology: The edited one.
        selection: The processes that are to run.
        record: Of the running project; None where it does not run: the plan is shown then.
        how: How it is shown and carried out.
        is_watching: Whether classes whose files change are restarted from now on.

    Raises:
        ControlRefusedError: The plan has what cannot change while the project runs.
        ControlError: Some workers are not as planned.
    """
    if record is None:
        plan = make_plan((), select(topology, selection))
        _show(topology.name, plan, is_running=False, as_json=how.as_json)
        return PLANNED
    refuse_unseen(record)
    request = UpRequest(
        files=tuple(map(str, topology.files)),
        environ=dict(os.environ),
        selection=selection,
        is_watching=is_watching,
    )
    state_dir = Project.of_record(record).state_dir

    async def make(client: Client) -> PlannedChanges:
        return await client.control.plan_up(request, state_dir)

    if not how.is_dry:
        console.note(f"{record.name} runs already (supervisor pid {record.pid})")
    return carry_out(attachment_of(record), make, how)


def scale_replicas(attachment: Attachment, counts: Mapping[str, int], how: How) -> int:
    """Run other numbers of replicas; returns the exit code.

    Args:
        attachment: The project.
        counts: The numbers by the name of the worker.
        how: How it is shown and carried out.

    Raises:
        UnknownNameError: A name stands for no worker.
        ControlError: Some replicas are not as asked for.
    """

    async def make(client: Client) -> PlannedChanges:
        return await client.control.plan_scale(counts)

    code = carry_out(attachment, make, how)
    console.note("this holds until the next `pbus up`, which takes the numbers of the topology")
    return code


def say_started(topology: Topology, selection: Selection) -> None:
    """Print as JSON what a new start has begun."""
    plan = make_plan((), select(topology, selection))
    _show(topology.name, plan, is_running=False, as_json=True)


def carry_out(
    attachment: Attachment, make: Callable[[Client], Awaitable[PlannedChanges]], how: How
) -> int:
    """Make a plan, show it and carry it out; returns the exit code.

    Args:
        attachment: The project.
        make: Makes the plan.
        how: How it is shown and carried out.

    Raises:
        ControlRefusedError: The plan has what cannot change while the project runs.
        ControlError: Some workers are not as planned.
    """
    name = attachment.project

    async def run(client: Client) -> int:
        planned = await make(client)
        plan = planned.plan
        if how.is_dry:
            _show(name, plan, is_running=True, as_json=how.as_json)
            return console.DONE if plan.is_empty else PLANNED
        if not how.as_json:
            _show(name, plan, is_running=True, as_json=False)
        if plan.fixed:
            raise _fixed_error(plan)
        results = await planned.carry_out(how.timeout_s, _teller(plan))
        if how.as_json:
            console.say_json(_as_json(name, plan, is_running=True, results=results))
        check_results(how.action, results)
        return console.DONE

    return call(attachment, run)


def _fixed_error(plan: Plan) -> ControlRefusedError:
    hint = "nothing was changed: `pbus down` and `pbus up` start the project with them"
    keys = ", ".join(f"`{key}`" for key in plan.fixed)
    return ControlRefusedError(f"{keys} cannot change while the project runs", hint=hint)


def _teller(plan: Plan) -> Callable[[ControlResult], None]:
    changes = {name: change for change in plan.changes for name in change.instances}

    def tell(result: ControlResult) -> None:
        console.note(_result_text(changes.get(result.worker), result))

    return tell


def _result_text(change: Change | None, result: ControlResult) -> str:
    """The outcome for one process, in a line."""
    action = "update" if change is None else change.action
    if change is not None and action == "scale":
        before, _, after = change.why[0].partition(" → ")
        action = "add" if int(after) > int(before) else "remove"
    if result.outcome not in {"done", "unchanged"}:
        return f"{result.worker} {result.outcome}: {result.detail}"
    pid = None if result.pid is None or action in {"update", "remove"} else f"pid {result.pid}"
    more = ", ".join(filter(None, (pid, result.detail)))
    return f"{result.worker} {_DONE[action]}" + (f" ({more})" if more else "")


def _show(name: str, plan: Plan, *, is_running: bool, as_json: bool) -> None:
    if as_json:
        console.say_json(_as_json(name, plan, is_running=is_running))
    elif plan.is_empty:
        console.say(f"{name}: nothing to do")
    for line in () if as_json else plan_lines(plan, _paint):
        console.say(line)
    console.flush()


def _paint(text: str, sgr: str) -> str:
    return console.paint(text, sgr, sys.stdout)


def _as_json(
    name: str, plan: Plan, *, is_running: bool, results: Iterable[ControlResult] | None = None
) -> dict[str, Any]:
    return {
        "project": name,
        "was_running": is_running,
        "changes": plan.changes,
        "fixed": plan.fixed,
        "results": None if results is None else list(results),
    }
