"""`pbus start`, `stop` and `restart`: one call, and a line about each worker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pbus.client import ControlResult
from pbus.messages import ControlAction
from pbus_cli.call.attach import call, choose, names_as
from pbus_cli.terminal import console

_WELL: Final = {
    ("start", "done"): "is ready",
    ("start", "unchanged"): "was running already",
    ("stop", "done"): "has stopped",
    ("stop", "unchanged"): "was not running",
    ("restart", "done"): "was restarted",
    ("roll", "done"): "was restarted",
    ("roll", "unchanged"): "was left alone",
}


def control(
    action: ControlAction,
    names: Sequence[str],
    project: str | None,
    file: Sequence[Path] | None,
    *,
    timeout_s: float | None,
) -> None:
    """Carry out a verb and print the outcome for each worker.

    Args:
        action: The verb.
        names: Names of workers.
        project: As given by the user.
        file: As given by the user.
        timeout_s: As of Control.restart().

    Raises:
        ControlError: Some workers are not as asked for.
    """

    def say(result: ControlResult) -> None:
        console.note(result_text(action, result))

    attachment = choose(project, file)
    with names_as("WORKER"):
        call(attachment, lambda client: client.control.run(action, names, timeout_s, say))


def result_text(action: ControlAction, result: ControlResult) -> str:
    """The outcome for one worker, in a line."""
    what = _WELL.get((action, result.outcome))
    if what is None:
        return f"{result.worker} {result.outcome}: {result.detail}"
    pid = None if result.pid is None else f"pid {result.pid}"
    more = ", ".join(filter(None, (pid, result.detail)))
    return f"{result.worker} {what}" + (f" ({more})" if more else "")
