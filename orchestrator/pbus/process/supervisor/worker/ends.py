"""Ends of a worker's processes: the facts that its crash capsule is made of."""

import time

from pbus.process.supervisor.worker.end_facts import EndFacts, is_good_end
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.system.spawn import Child


def note_launch_error(status: WorkerStatus, reason: str) -> None:
    """Keep the facts about a process that could not be started, until the next change of state."""
    end = EndFacts(reason=reason, is_error=True, ended=time.time(), start=status.start_count)
    status.facts.end(end)


def note_end(
    status: WorkerStatus,
    child: Child,
    reason: str,
    *,
    is_told: bool = False,
    is_failure: bool = False,
) -> None:
    """Keep the facts about an end, until the next change of state.

    Args:
        status: Of the worker.
        child: The ended process.
        reason: As text.
        is_told: A command had told it to end.
        is_failure: It is an error whatever the code is.
    """
    now, error, code = time.time(), status.output.error(child.code), child.code
    is_good = code is not None and is_good_end(status.instance.spec, code, is_told=is_told)
    ready_at = status.ready_at
    end = EndFacts(
        reason=reason,
        is_error=is_failure or not is_good,
        is_told=is_told,
        pid=child.pid,
        started=child.started_at,
        ready=None if ready_at is None else now - (status.clock() - ready_at),
        ended=now,
        code=code,
        start=status.start_count,
        error=None if error == reason else error,
        open_messages=status.open_messages,
    )
    status.facts.end(end)
