"""Every error pbus raises: its fields, the sentence a user reads, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class PbusError(Exception):
    """Base of all errors raised by pbus.

    Attributes:
        message: What happened and where, one sentence without a full stop.
        hint: What to do about it, or None where nothing can be said.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}: {hint}")
        self.message = message
        self.hint = hint


_LONGEST_TEXT = 2_000
_KEY_HINT = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


def text_of(error: BaseException) -> str:
    """What an error of anybody's says, fit to be logged and sent: short, and always text."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - it is the user's, and what it says is not what matters
        text = "its text cannot be made"
    text = sendable(text or type(error).__name__)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …"


def kind_of(error: BaseException) -> str:
    """The class of an error of anybody's, by name."""
    return error.kind if isinstance(error, HandlerExitError) else type(error).__name__


def sendable(text: str) -> str:
    """A text without the half characters that file names may have, which no message can carry."""
    return text.encode(errors="backslashreplace").decode()


# Messages and the wire


class MessageError(PbusError):
    """A message cannot be defined, encoded or decoded."""


class DuplicateTypeError(MessageError):
    """Two message (or frame) classes share one name, so the wire could not tell them apart.

    Attributes:
        file: Where both are defined, when one file was loaded under two module names.
    """

    def __init__(self, name: str, first: str, second: str, file: str | None = None) -> None:
        if file is None:
            problem, hint = "", "rename one of the two classes"
        else:
            problem = f": {file} was loaded twice"
            hint = (
                "import it by one name everywhere; where it is the program itself, move its message"
                " classes to a module of their own"
            )
        super().__init__(
            f"message type {name!r} is already defined by {first},"
            f" so {second} cannot define it{problem}",
            hint=hint,
        )
        self.name = name
        self.file = file


class MessageDefinitionError(MessageError):
    """A message class has a field whose type cannot be found or cannot travel."""

    def __init__(self, name: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"message type {name!r} cannot be used: {problem}", hint=hint)
        self.name = name


class MessageEncodeError(MessageError):
    """A field holds a value that the wire cannot carry unchanged."""

    def __init__(
        self, type_name: str, field: str, problem: str, *, hint: str | None = None
    ) -> None:
        super().__init__(f"{type_name}.{field} cannot be sent: {problem}", hint=hint)
        self.type_name = type_name
        self.field = field


class MessageTooLargeError(MessageEncodeError):
    """An encoded message is larger than the bus allows."""

    def __init__(self, type_name: str, size: int, limit: int, *, hint: str | None = None) -> None:
        MessageError.__init__(
            self,
            f"{type_name} is {size:,} bytes on the wire and the bus carries at most {limit:,}",
            hint=hint or "send it in parts or raise max_message_bytes",
        )
        self.type_name = type_name
        self.field = ""
        self.size = size
        self.limit = limit


class MessageDecodeError(MessageError):
    """Bytes from the channel are no message that this process knows."""

    def __init__(self, problem: str, *, type_name: str = "") -> None:
        what = f"a {type_name}" if type_name else "a message"
        super().__init__(f"{what} from the channel was refused: {problem}")
        self.type_name = type_name


class UnknownTypeError(MessageDecodeError):
    """A message is of a type that no module of this process defines."""

    def __init__(self, type_name: str) -> None:
        super().__init__("its type is unknown here", type_name=type_name)


class MessageRefusedError(MessageError):
    """No receiver accepts a message, so it was not sent."""

    def __init__(self, type_name: str, refusals: Sequence[str]) -> None:
        super().__init__(
            f"{type_name} was not sent, since it is refused by {'; by '.join(refusals)}"
        )
        self.type_name = type_name


class SealError(MessageDecodeError):
    """Bytes from the channel were not sealed with a key of this process."""


class SourceError(MessageDecodeError):
    """A message has the name of a worker that another process has than the one that sent it."""


# The bus


class BusError(PbusError):
    """A bus cannot do what was asked of it."""


class BusClosedError(BusError):
    """The bus was stopped (or never started) and cannot send."""

    def __init__(self, state: str = "stopped") -> None:
        super().__init__(
            f"the bus is {state}",
            hint="use `async with bus:` or await bus.start() first, and send before stop()"
            " (WorkerRunner.run() does both)",
        )


class BusLoopError(BusError):
    """A bus is used in another event loop than the one in which it was started."""

    def __init__(self) -> None:
        super().__init__(
            "the bus belongs to another event loop, of an earlier asyncio.run()",
            hint="make a new bus (and runner) within each asyncio.run(), or call it once for all",
        )


class BusFullError(BusError):
    """A receiver (or the broker) did not take messages for the whole send timeout."""

    def __init__(self, address: str, waited_s: float, reason: str) -> None:
        super().__init__(
            f"no room to send to {address} for {waited_s:g} s: {reason}",
            hint="the receiver is slower than the sender; slow down, add replicas, or raise send_timeout",
        )
        self.address = address
        self.waited_s = waited_s


class LeaseTooLargeError(BusError):
    """What a process tells of itself is larger than the registry takes."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} is {size:,} bytes and the registry takes at most {limit:,}",
            hint="have fewer job names in one worker, or fewer workers in one project",
        )
        self.size = size
        self.limit = limit


class BusUnavailableError(BusError):
    """The broker cannot be reached or refuses us.

    Attributes:
        url: Where, with the password masked.
        reason: What the broker or the operating system said.
    """

    def __init__(self, url: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"cannot use the message broker at {url}: {reason}",
            hint=hint or "is it running, and are the address, user and password right?",
        )
        self.url = url
        self.reason = reason


class BrokerFaultError(BusUnavailableError):
    """The broker is there, and cannot do what it was asked: the same again would fail again."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason, hint="the broker's log says more")


class BrokerRefusedError(BusUnavailableError):
    """The broker is there and will not serve us as things are; trying again is no use."""


class BrokerLoginError(BrokerRefusedError):
    """The broker does not let this user into this database."""

    def __init__(self, url: str, reason: str) -> None:
        hint = (
            "check the user, the password and the database of the URL, and the server's pg_hba.conf"
        )
        super().__init__(url, reason, hint=hint)


class BrokerGrantError(BrokerRefusedError):
    """The user lacks a right that pbus needs."""

    def __init__(self, url: str, reason: str) -> None:
        hint = (
            "run `pbus up` once as a role that has CREATE on the database (GRANT CREATE ON DATABASE"
            " ... TO ...), or as the owner of the schemas pgmq and pbus, after each new version of"
            " pbus; README names the rights that other roles need (under Postgres)"
        )
        super().__init__(url, reason, hint=hint)


class BrokerPoolerError(BrokerRefusedError):
    """What stands before the broker gives each statement to another session."""

    def __init__(self, url: str) -> None:
        hint = (
            "connect to the server itself, or through a pool in session mode"
            " (PgBouncer: pool_mode=session for this database)"
        )
        reason = "a connection pool in transaction mode stands before it, which keeps no session"
        super().__init__(url, f"{reason}, so nothing would be heard of new messages", hint=hint)


class BrokerVersionError(BrokerRefusedError):
    """The broker is too old.

    Attributes:
        needed: The oldest that will do.
    """

    def __init__(self, url: str, found: str, needed: str) -> None:
        super().__init__(url, f"it is {found}", hint=f"use {needed} or later")
        self.needed = needed


class PgmqMissingError(BrokerRefusedError):
    """The database has no PGMQ that pbus can use, and pbus could not install it."""

    def __init__(self, url: str, reason: str) -> None:
        hint = (
            "run CREATE EXTENSION pgmq (or ALTER EXTENSION pgmq UPDATE) where the server has it,"
            " else pgmq.install.install_pgmq_sql of the package pgmq>=1.1"
        )
        super().__init__(url, reason, hint=hint)


class BackendMissingError(BusError):
    """A bus needs a package that is not installed."""

    def __init__(self, backend: str, module: str, requirement: str) -> None:
        super().__init__(
            f"the {backend} bus needs the Python module {module!r}, which is not installed",
            hint=f"pip install '{requirement}'",
        )
        self.backend = backend
        self.module = module


class BusUrlError(BusError):
    """A bus URL names no backend that pbus has."""

    def __init__(self, url: str, schemes: Sequence[str]) -> None:
        super().__init__(
            f"{url!r} is no bus URL that pbus knows", hint=f"use one of {', '.join(schemes)}"
        )
        self.url = url


class BusKeyError(BusError):
    """A key of the bus cannot be used; its text is never part of this."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the key of the bus cannot be used: {problem}", hint=_KEY_HINT)
        self.problem = problem


class DuplicateSubscriberError(BusError):
    """Two subscribers of one process carry the same name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a subscriber named {name!r} is already on this bus",
            hint="give each subscriber its own name, or unsubscribe the first",
        )
        self.name = name


# Workers, registry and jobs


class WorkerError(PbusError):
    """A worker cannot do what was asked of it."""


class WorkerNameError(WorkerError):
    """A worker name the bus cannot address."""

    def __init__(self, name: object, problem: str) -> None:
        super().__init__(
            f"{name!r} is no worker name: {problem}",
            hint="use letters, digits, '_' and '-', starting with a letter or '_'",
        )
        self.name = name


class WorkerNotAttachedError(WorkerError):
    """The worker was used before a runner attached it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"worker {name!r} is not attached to a runner",
            hint="add it with runner.add_workers() and use it from start() on",
        )
        self.name = name


class DuplicateWorkerError(WorkerError):
    """A worker name is taken by another live worker of the channel."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f"the worker name {name!r} is taken by {holder}",
            hint="choose another name, or wait until that worker has left",
        )
        self.name = name
        self.holder = holder


class WorkerNotFoundError(WorkerError):
    """No worker of that name was registered in time."""

    def __init__(self, name: str, waited_s: float, hint: str | None = None) -> None:
        super().__init__(
            f"no worker {name!r} was registered within {waited_s:g} s",
            hint=hint or "`pbus ps` lists those that are",
        )
        self.name = name
        self.waited_s = waited_s


class HandlerDefinitionError(WorkerError):
    """A handler, a hook or an attribute of a worker class clashes with another or has the wrong form."""

    def __init__(self, where: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{where}: {problem}", hint=hint)
        self.where = where


class HandlerExitError(WorkerError):
    """A handler raised what is meant for the interpreter, as sys.exit() does; its message failed.

    Attributes:
        where: The handler, and whose it is.
        kind: The class of what it raised.
    """

    def __init__(self, where: str, error: BaseException) -> None:
        if isinstance(error, SystemExit):
            code = "" if error.code is None else text_of(error)
            problem, hint = f"called sys.exit({code})", "`await self.end()` ends the session"
        else:
            text, kind = text_of(error), type(error).__name__
            problem = f"raised {kind}" if text == kind else f"raised {kind}: {text}"
            hint = "raise an Exception; no other is a handler's to raise"
        super().__init__(f"{where} {problem}, which ends this message only", hint=hint)
        self.where = where
        self.kind = type(error).__name__


class RunnerStateError(WorkerError):
    """A runner was asked for something that it does only before, or only while, it runs."""

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"runner {name!r} {state}", hint="make a new WorkerRunner, each runs once")
        self.name = name
        self.state = state


class UnknownEventError(WorkerError):
    """A handler was to be added to an event that does not exist."""

    def __init__(
        self, owner: str, event: str, known: Sequence[str], nearest: Sequence[str] = ()
    ) -> None:
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(known)}"
        super().__init__(f"{owner} has no event {event!r}", hint=hint)
        self.event = event
        self.known = tuple(known)


class JobError(PbusError):
    """A job did not complete.

    Attributes:
        job_id: The job's id.
        worker: The worker that was asked.
        statuses: How each worker's part of the job ended, or "open", by the name asked for.
    """

    def __init__(self, job_id: str, worker: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"job {job_id} at {worker!r} {problem}", hint=hint)
        self.job_id = job_id
        self.worker = worker
        self.statuses: dict[str, str] = {}


class JobTimeoutError(JobError, TimeoutError):
    """The job's deadline passed; waiting for the worker to be ready is part of it."""

    def __init__(self, job_id: str, worker: str, timeout_s: float, phase: str) -> None:
        super().__init__(job_id, worker, f"timed out after {round(timeout_s, 2):g} s ({phase})")
        self.timeout_s = timeout_s
        self.phase = phase


class JobCancelledError(JobError):
    """The job was cancelled, by its requester or by the worker; never a success."""

    def __init__(self, job_id: str, worker: str, reason: str | None) -> None:
        super().__init__(job_id, worker, f"was cancelled ({reason or 'no reason given'})")
        self.reason = reason


class JobFailedError(JobError):
    """The worker answered with status error or failed.

    Attributes:
        status: "error" or "failed".
        response: What the worker answered: for a handler that raised, the keys error, type and
            traceback.
    """

    def __init__(self, job_id: str, worker: str, status: str, response: dict[str, object]) -> None:
        reason = response.get("error")
        kind = response.get("type") if "traceback" in response else None  # else it says enough
        text = f"{kind}: {reason}" if kind and kind != reason else reason
        super().__init__(job_id, worker, f"{status}: {text}" if text else f"ended {status}")
        self.status = status
        self.response = response


class JobWorkerLostError(JobError):
    """The worker died, left or was lost while the job was open."""

    def __init__(self, job_id: str, worker: str, reason: str) -> None:
        super().__init__(job_id, worker, f"ended with its worker: {reason}")
        self.reason = reason


class JobStateError(JobError):
    """An answer or update was given for a job that is not open here."""

    def __init__(self, job_id: str, worker: str) -> None:
        super().__init__(
            job_id, worker, "is not open here", hint="a job is answered once, by the worker asked"
        )


class JobNotFoundError(WorkerError):
    """Nobody who answered knows an open job of that id."""

    def __init__(self, job_id: str, silent: Sequence[str] = ()) -> None:
        hint = "`pbus jobs` lists the open ones"
        if silent:
            hint = f"these runners did not answer: {', '.join(silent)}"
        super().__init__(f"there is no open job {job_id!r}", hint=hint)
        self.job_id = job_id
        self.silent = list(silent)


class JobNotDoneError(JobError):
    """The response of a job was read before there was one."""

    def __init__(self, job_id: str, worker: str) -> None:
        super().__init__(
            job_id, worker, "is not answered yet", hint="leave its 'async with' block first"
        )


# The topology


class TopologyError(PbusError):
    """A topology file is wrong; carries every problem found, not only the first.

    Attributes:
        file: The file.
        problems: One line of text a problem, each beginning with ``file:line``.
    """

    def __init__(self, file: Path, problems: Sequence[str]) -> None:
        count = len(problems)
        super().__init__(
            f"{file} has {count} problem{'s' if count != 1 else ''}\n" + "\n".join(problems)
        )
        self.file = file
        self.problems = tuple(problems)


# Processes and projects


class ProcessError(PbusError):
    """A process or a project cannot be started, found or stopped."""


class ProjectRunningError(ProcessError):
    """The project is already up on this machine."""

    def __init__(self, name: str, folder: Path, pid: int) -> None:
        super().__init__(
            f"project {name!r} in {folder} is already running (pid {pid})",
            hint="`pbus ps` shows it, `pbus down` stops it",
        )
        self.name = name
        self.pid = pid


class SurvivorsError(ProcessError):
    """Processes of a project could not be ended."""

    def __init__(self, survivors: Mapping[str, str]) -> None:
        told = "; ".join(f"{name}: {what}" for name, what in survivors.items())
        super().__init__(
            f"not all of the project has ended: {told}",
            hint="end it as its user or as root (`kill PID`)",
        )
        self.survivors = dict(survivors)


class NothingRunningError(ProcessError):
    """No running project matches what was asked for."""

    def __init__(self, what: str, others: Sequence[str] = ()) -> None:
        start = "start one with `pbus up`"
        named = "; running: " + ", ".join(others) + " (-p NAME)" if others else ""
        super().__init__(f"no running project {what}", hint=start + named)


class StrangeFileError(NothingRunningError):
    """A topology that was only found, not named, has a broker with which it did not run here."""

    def __init__(self, file: Path, url: str) -> None:
        ProcessError.__init__(
            self,
            f"{file} was never started here by you with the broker at {url}: not connected",
            hint=f"say so to connect to it: -f {file}",
        )


class OrphanedProjectError(NothingRunningError):
    """A supervisor was killed together with its guard, and its processes go on without them.

    Attributes:
        record: What the supervisor wrote down of itself (a ProjectRecord).
    """

    def __init__(self, name: str, record: Any, pids: Sequence[int]) -> None:
        shown = ", ".join(map(str, pids))
        ProcessError.__init__(
            self,
            f"project {name!r} has no supervisor any more, and no guard: left are pids {shown}",
            hint="`pbus down` ends them, `pbus up` starts anew",
        )
        self.name = name
        self.record = record


class UnseenProjectError(ProcessError):
    """A running project is one process without a broker, so no other process sees into it."""

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(
            f"project {name!r} runs in one process (pid {pid}) on memory://,"
            " which no other process can look into",
            hint="look at its terminal or attach a debugger there; with a broker"
            " (leave `backend: memory` out) this works, and `pbus down` always does",
        )
        self.name = name
        self.pid = pid


class MailNotKeptError(ProcessError):
    """A project keeps no messages, so there are none to look after."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"project {name!r} keeps no messages: it delivers at most once",
            hint="set `delivery: at-least-once` under `bus` in the topology",
        )
        self.name = name


class AmbiguousProjectError(ProcessError):
    """Several projects run and none was chosen."""

    def __init__(self, names: Sequence[str]) -> None:
        are_namesakes = any("(" in name for name in names)  # then they are told by their files
        super().__init__(
            f"several projects are running: {', '.join(names)}",
            hint=f"choose one with {'-f FILE' if are_namesakes else '-p NAME'}",
        )
        self.names = tuple(names)


class BrokerStartError(ProcessError):
    """The embedded broker did not start."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the embedded {what} did not start: {reason}")


class LoopMissingError(ProcessError):
    """The topology asks for an event loop that is not installed."""

    def __init__(self, loop: str) -> None:
        super().__init__(
            f"`loop: {loop}` needs the Python module {loop!r}, which is not installed",
            hint=f"pip install 'pbus-orchestrator[{loop}]', or leave `loop` out",
        )
        self.loop = loop


class WorkerLoadError(ProcessError):
    """A worker class cannot be imported or constructed.

    Attributes:
        is_final: Trying again changes nothing: the class is not there.
    """

    def __init__(self, reference: str, problem: str, *, is_final: bool = True) -> None:
        super().__init__(f"worker {reference!r} cannot be loaded: {problem}")
        self.reference = reference
        self.is_final = is_final


# The client


class UnknownNameError(WorkerError):
    """A name stands for nothing that is there.

    Attributes:
        what: The kind of thing that was named: "worker" or "queue".
        name: The name as it was given.
        nearest: The known name most like it; None if none is like it.
        known: All known names.
    """

    def __init__(self, what: str, name: str, nearest: str | None, known: Sequence[str]) -> None:
        if nearest is not None:
            hint = f"did you mean {nearest!r}?"
        else:
            hint = f"there are: {', '.join(known) or 'none'}"
        super().__init__(f"there is no {what} {name!r}", hint=hint)
        self.what = what
        self.name = name
        self.nearest = nearest
        self.known = tuple(known)


class UnsupervisedWorkerError(UnknownNameError):
    """A worker is on the bus, but no supervisor started it, so none can start or stop it."""

    def __init__(self, name: str) -> None:
        WorkerError.__init__(
            self,
            f"{name!r} was not started by `pbus up`",
            hint="only the program that started it can do that",
        )
        self.what = "worker"
        self.name = name
        self.nearest = None
        self.known = ()


class ControlError(ProcessError):
    """Workers were not started, stopped or restarted as asked.

    Attributes:
        action: "start", "stop" or "restart".
        results: The result of each worker that was asked for (ControlResult).
        failed: The names of those that failed.
    """

    def __init__(
        self, action: str, done: str, results: Sequence[Any], failed: Sequence[str]
    ) -> None:
        super().__init__(
            f"not {done}: {', '.join(failed)}", hint="`pbus logs WORKER` shows what it wrote"
        )
        self.action = action
        self.results = list(results)
        self.failed = tuple(failed)


class ControlTimeoutError(ProcessError, TimeoutError):
    """Workers were not started, stopped or restarted in time; their supervisors still try it.

    Attributes:
        action: "start", "stop" or "restart".
        workers: The names of those that were not done.
    """

    def __init__(self, action: str, workers: Sequence[str], timeout_s: float) -> None:
        super().__init__(
            f"cannot {action} within {timeout_s:g} s: {', '.join(workers)}; it is still tried"
        )
        self.action = action
        self.workers = tuple(workers)
        self.timeout_s = timeout_s


class JobNotCancelledError(WorkerError):
    """An open job was not cancelled by its requester.

    Attributes:
        outcome: "unknown": it is over; "not cancellable"; "silent": the requester did not answer.
    """

    def __init__(self, job_id: str, outcome: str, problem: str) -> None:
        super().__init__(f"job {job_id} {problem}")
        self.job_id = job_id
        self.outcome = outcome


class RequesterSilentError(JobNotCancelledError, TimeoutError):
    """The requester of a job did not answer, so it is not known whether the job was cancelled."""

    def __init__(self, job_id: str, requester: str, waited_s: float) -> None:
        super().__init__(job_id, "silent", "")
        text = f"{requester}, who asked for job {job_id}, did not answer within {waited_s:g} s"
        self.args = (text,)
        self.message = text
        self.requester = requester
        self.waited_s = waited_s


class MessageInputError(MessageError):
    """Fields do not make a message of the type given.

    Attributes:
        type_name: The type.
        field: The field that is wrong; empty where the problem is with all of them.
    """

    def __init__(self, type_name: str, problem: str, *, field: str = "") -> None:
        super().__init__(problem)
        self.type_name = type_name
        self.field = field


class DeadLetterNotFoundError(ProcessError):
    """No dead letter has these keys; those with other keys that were given have been dealt with.

    Attributes:
        keys: The unknown keys.
        done: How many others were dealt with.
    """

    def __init__(self, keys: Sequence[str], done: int = 0) -> None:
        super().__init__(f"no dead letter has the key {', '.join(keys)}", hint="see `pbus dlq ls`")
        self.keys = tuple(keys)
        self.done = done


class StartupError(ProcessError):
    """Workers failed before they were ready.

    Attributes:
        workers: The names of those that failed.
        failed: Why each failed, by name.
        waiting: The state of each other that was not ready, by name.
    """

    def __init__(self, failed: Mapping[str, str], waiting: Mapping[str, str] | None = None) -> None:
        lines = [f"worker {name!r} failed: {why}" for name, why in failed.items()]
        lines += [f"worker {name!r} is not ready: {why}" for name, why in (waiting or {}).items()]
        hint = "what else was started goes on running; `pbus down` stops it"
        super().__init__("\n".join(lines), hint=hint)
        self.workers = tuple(failed)
        self.failed = dict(failed)
        self.waiting = dict(waiting or {})


class NotReadyError(ProcessError, TimeoutError):
    """Workers were not ready in time.

    Attributes:
        waiting: The state of each that was not ready, by name.
    """

    def __init__(self, waiting: Mapping[str, str], timeout_s: float) -> None:
        names = "; ".join(f"{name} ({why})" for name, why in waiting.items())
        super().__init__(f"not ready within {timeout_s:g} s: {names or 'the supervisor'}")
        self.waiting = dict(waiting)
        self.timeout_s = timeout_s


class ClientClosedError(BusError):
    """A client was used outside of its `with` block, or after close()."""

    def __init__(self, state: str) -> None:
        super().__init__(
            f"the client is {state}", hint="use it within its `with` (or `async with`) block"
        )


class CallTimeoutError(BusError, TimeoutError):
    """A call of the synchronous client had no result in time.

    Attributes:
        call: The name of the method.
        timeout_s: Seconds it was waited for.
    """

    def __init__(self, call: str, timeout_s: float) -> None:
        super().__init__(f"{call}() had no result within {timeout_s:g} s")
        self.call = call
        self.timeout_s = timeout_s


# Testing


class NotSeenError(PbusError, AssertionError):
    """In a test, what was waited for did not happen in time."""

    def __init__(self, what: str, waited_s: float, instead: str | None = None) -> None:
        super().__init__(f"{what} within {waited_s:g} s", hint=instead)
        self.waited_s = waited_s
