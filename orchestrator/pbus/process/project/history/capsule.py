"""Crash capsules: the facts about one end of a worker's process with an error."""

from typing import Any, Final

import msgspec

from pbus.process.project.history.traffic_history import KeptMessage
from pbus.running_handlers import RunningHandler
from pbus.stack_values import ProcessStacks

MAX_BYTES: Final = 256 * 1024  # of one as JSON
_MAX_TEXT: Final = 1024  # characters of a line


class LogEntry(msgspec.Struct, frozen=True):
    """A line of the log; `stream` is "out", "err", or "pbus" for lines of the supervisor."""

    time: float
    stream: str
    text: str


class UsageSample(msgspec.Struct, frozen=True):
    """The usage of the process at a time: percent of one core, and resident memory."""

    time: float
    cpu_percent: float
    rss_bytes: int


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that had no answer yet.

    Attributes:
        since: The time of its request, Unix seconds.
        message_id: The id of the request.
    """

    job_id: str
    requester: str
    worker: str
    since: float
    message_id: str = ""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The last messages of a worker, oldest first.

    Attributes:
        received: Those to it, to its group, and to everyone.
        jobs: Those that it was asked for or had asked for, the newest, without an answer.
        missed: Messages of the whole channel that passed unseen since these were kept.
    """

    received: tuple[KeptMessage, ...] = ()
    sent: tuple[KeptMessage, ...] = ()
    jobs: tuple[OpenJob, ...] = ()
    missed: int = 0


class OpenWork(msgspec.Struct, frozen=True, kw_only=True):
    """The work of a process that had not ended, and its fate.

    Attributes:
        fate: As text; "" where nothing was open, or the broker was away.
        beat: Time of the last heartbeat, which the following is of; None where none was seen.
        queued: Messages that waited.
        working: Accepted jobs.
        handlers: The handler of each worker that had run longest.
        is_stored: Messages are stored until they are handled.
    """

    fate: str = ""
    beat: float | None = None
    queued: int = 0
    working: int = 0
    handlers: dict[str, RunningHandler] = {}
    is_stored: bool = False


class Sequel(msgspec.Struct, frozen=True):
    """The state that followed, and its detail."""

    state: str
    detail: str


class Capsule(msgspec.Struct, frozen=True, kw_only=True):
    """One end of a worker's process with an error; the fields are the keys of the JSON output.

    Attributes:
        run: The number of the run; None where it was not kept.
        workers: All workers of the process.
        pid: None where no process could be started; `started`, Unix seconds, likewise.
        ready: When it became ready; None where it did not.
        start: How many processes of the worker were started in the run, this one included.
        reason: The end as text.
        code: The exit code; None after a signal, and without a process.
        signal: Name of the signal that ended it.
        is_told: A command had told the process to end.
        error: The line that most likely tells the cause.
        log: The last lines, those of pbus included.
        log_left_out: Lines of the process before these.
        usage: Of its last minute, at most one a second.
        stacks: Of a process that hung.
        stacks_error: Why there are none of a process that hung.
        traffic: None where the supervisor does not follow the messages.
    """

    project: str
    run: int | None
    session: str
    worker: str
    workers: tuple[str, ...]
    pid: int | None
    started: float | None
    ready: float | None
    ended: float
    start: int
    reason: str
    code: int | None
    signal: str | None
    is_told: bool
    error: str | None
    sequel: Sequel
    open: OpenWork = OpenWork()
    traffic: Traffic | None = None
    log: tuple[LogEntry, ...] = ()
    log_left_out: int = 0
    usage: tuple[UsageSample, ...] = ()
    stacks: ProcessStacks | None = None
    stacks_error: str | None = None


_encode = msgspec.json.Encoder().encode


def encode_capsule(capsule: Capsule) -> bytes:
    """Encode a capsule in at most MAX_BYTES: the oldest log lines go first, then tasks, then the rest."""
    replace, error, sequel = msgspec.structs.replace, capsule.error, capsule.sequel
    capsule = replace(
        capsule,
        reason=capsule.reason[:_MAX_TEXT],
        error=None if error is None else error[:_MAX_TEXT],
        sequel=replace(sequel, detail=sequel.detail[:_MAX_TEXT]),
        open=replace(capsule.open, fate=capsule.open.fate[:_MAX_TEXT]),
        log=tuple(replace(one, text=one.text[:_MAX_TEXT]) for one in capsule.log),
    )
    body = _encode(capsule)
    while len(body) > MAX_BYTES and (smaller := _smaller(capsule)) is not None:
        capsule = smaller
        body = _encode(capsule)
    return body


def decode_capsule(body: bytes) -> Capsule:
    """Decode a capsule.

    Raises:
        msgspec.MsgspecError: It is none.
        UnicodeError: Likewise.
        RecursionError: Likewise.
    """
    return msgspec.json.decode(body, type=Capsule)


def _smaller(capsule: Capsule) -> Capsule | None:
    """The capsule without a part of what it has most of; None where nothing is left to give up."""
    changes: dict[str, Any] = {}
    if len(capsule.log) > 1:
        half = len(capsule.log) // 2
        changes = {"log": capsule.log[half:], "log_left_out": capsule.log_left_out + half}
    elif (stacks := capsule.stacks) is not None:
        changes["stacks"] = _fewer_stacks(stacks)
        if changes["stacks"] is None:
            changes["stacks_error"] = "they are too large to be kept"
    elif capsule.traffic is not None:
        changes["traffic"] = None
    elif len(capsule.workers) > 1 or capsule.open.handlers:
        changes = {"workers": (capsule.worker,), "open": OpenWork(fate=capsule.open.fate)}
    return msgspec.structs.replace(capsule, **changes) if changes else None


def _fewer_stacks(stacks: ProcessStacks) -> ProcessStacks | None:
    if stacks.tasks:
        kept = stacks.tasks[: len(stacks.tasks) // 2]
        left_out = stacks.left_out + len(stacks.tasks) - len(kept)
        return msgspec.structs.replace(stacks, tasks=kept, left_out=left_out)
    if len(stacks.threads) > 1:
        return msgspec.structs.replace(stacks, threads=stacks.threads[len(stacks.threads) // 2 :])
    return None
