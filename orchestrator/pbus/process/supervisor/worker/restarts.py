"""Restarts of one worker: applies the restart policy, waits, or gives the worker up."""

import errno
import random

from msgspec.structs import replace

from pbus.process.supervisor.worker import restart_policy
from pbus.process.supervisor.worker.ends import note_launch_error
from pbus.process.supervisor.worker.host import ProcessHost
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.supervisor.worker.worker_target import WorkerTarget
from pbus.topology.model import WorkerSpec
from pbus.topology.policy.policies import RestartSpec

_BROKER_POLL_S = 0.25

# A first start that fails so fails again: the file is missing or no program. A later one may wait
# for a deployment.
_PERMANENT_ERRORS = frozenset({
    errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.E2BIG,
})  # fmt: skip
# The system has no room for it now.
_TEMPORARY_ERRORS = frozenset({
    errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY,
})  # fmt: skip


class Restarts:
    """Decides and waits between two processes of a worker."""

    def __init__(self, status: WorkerStatus, target: WorkerTarget, host: ProcessHost) -> None:
        self._status = status
        self._target = target
        self._host = host

    @property
    def _spec(self) -> WorkerSpec:
        return self._status.instance.spec

    async def after_launch_error(self, error: OSError | ValueError) -> None:
        """Handle a process that could not be started."""
        reason = _launch_error_text(error)
        self._status.note(reason, is_error=True)
        note_launch_error(self._status, reason)
        number = error.errno if isinstance(error, OSError) else None
        if number in _PERMANENT_ERRORS or isinstance(error, ValueError):
            await self._after_obstacle(reason, may_pass=self._status.has_been_ready)
        elif number in _TEMPORARY_ERRORS:
            await self._after_obstacle(reason, may_pass=True)
        else:
            await self.after_exit(1, reason)

    @property
    def _policy(self) -> RestartSpec:
        spec = self._spec.restart
        return replace(spec, policy="never") if self._target.is_final else spec

    async def after_exit(
        self, code: int, reason: str, open_messages: str = "", *, is_failure: bool = False
    ) -> None:
        """Apply the restart policy to an exit.

        Args:
            code: The exit code.
            reason: The exit as text.
            open_messages: Fate of the messages that the process held.
            is_failure: The exit is a failure whatever the code is.
        """
        if code == restart_policy.UNLOADABLE and self._spec.is_hosted:
            may_pass = self._status.has_been_ready and not self._target.is_watched
            what = "class cannot be loaded" if self._spec.stdio is None else "program is not there"
            await self._after_obstacle(f"its {what}", may_pass=may_pass)
            return
        now, ready_at = self._status.clock(), self._status.ready_at
        end = restart_policy.Exit(
            code=code,
            at=now,
            has_succeeded=not is_failure and self._spec.is_success(code),
            ready_for_s=0.0 if ready_at is None else now - ready_at,
            is_excused=self._host.broker.was_away,
        )
        decision = restart_policy.after_exit(
            self._policy,
            end,
            self._status.history,
            random.random(),  # noqa: S311 - no secret
        )
        match decision:
            case restart_policy.Restart():
                await self._back_off(decision, joined(reason, open_messages))
            case restart_policy.GiveUp(text):
                await self._give_up(text.replace(restart_policy.describe_exit(code), reason, 1))
            case restart_policy.Finish():
                self._target.is_wanted = self._target.restart_requested
                self._status.enter("exited", joined(reason, open_messages))

    async def _after_obstacle(self, reason: str, *, may_pass: bool) -> None:
        """The program did not run: give the worker up, or retry until it does."""
        policy = self._policy
        if may_pass and policy.policy != "never":
            history, share = self._status.history, random.random()  # noqa: S311 - no secret
            await self._back_off(restart_policy.after_obstacle(policy, history, share), reason)
        else:
            await self._give_up(reason)

    async def _back_off(self, decision: restart_policy.Restart, reason: str) -> None:
        status, target = self._status, self._target
        status.history = decision.history
        counted = restart_policy.count_text(self._policy, status.history)
        status.enter_trouble(
            "backoff", f"{reason}{counted}", f"restarts in {decision.delay_s:.3g} s"
        )
        deadline = status.clock() + decision.delay_s
        while target.may_run and (left := deadline - status.clock()) > 0:
            await target.wait_changed(left)
        await self._wait_for_broker(reason)
        self._enter_unwanted(reason)

    def _enter_unwanted(self, reason: str) -> None:
        """Enter the final state of a worker that is not wanted any more."""
        if not self._target.is_wanted:
            is_success = self._spec.is_success(self._status.code)
            has_ended_well = self._target.is_stopped_by_user or is_success
            if has_ended_well:
                self._status.enter("exited", reason)
            else:
                self._status.enter_trouble("failed", reason)

    async def _wait_for_broker(self, reason: str) -> None:
        """Start no process that could not join the bus: it would end again."""
        if not self._spec.joins or not self._host.broker.is_away:
            return
        self._status.enter_trouble("backoff", reason, "waits for the broker")
        while self._target.may_run and self._host.broker.is_away:
            await self._target.wait_changed(_BROKER_POLL_S)

    async def _give_up(self, reason: str) -> None:
        if self._target.is_watched and not self._target.is_final:
            await self._wait_for_change(reason)
            return
        self._target.is_wanted = self._target.restart_requested
        self._status.fail(reason)

    async def _wait_for_change(self, reason: str) -> None:
        """Wait until the worker's files change, which makes its target a restart."""
        text = f"{reason}; waits for a change of its files"
        self._status.note(text)
        self._status.enter_trouble("backoff", text, "")
        while self._target.may_run:
            await self._target.wait_changed()
        self._enter_unwanted(reason)


def joined(*words: str) -> str:
    """Join the words that are not empty by commas."""
    return ", ".join(filter(None, words))


def _launch_error_text(error: OSError | ValueError) -> str:
    text, filename = str(error), None
    if isinstance(error, OSError):
        text, filename = error.strerror or text, error.filename
    reason = f"cannot be started: {text}" + (f": {filename}" if filename else "")
    return reason.encode(errors="backslashreplace").decode()  # a file name need not be text
