"""One worker's process over all its lives: started, watched, restarted, taken down, by one task."""

import asyncio
import collections
import contextlib
import errno
import logging
import re
import signal
import time
from collections.abc import Callable
from typing import Protocol

from pbus.ids import new_token
from pbus.observe import ProcessRecord, State
from pbus.process.supervisor import restart_policy, shutdown
from pbus.process.supervisor.usage import Usage
from pbus.process.supervisor_events import (
    Event,
    Exited,
    GaveUp,
    Line,
    Ready,
    Started,
    StateChanged,
    Stream,
)
from pbus.process.system.spawn import Child, OnLine
from pbus.topology.model import WorkerInstance

_LAST_LINES = 20
# Log lines that say nothing about why a worker failed, after whatever stamps stand before.
_CHATTER = re.compile(r"(?:[\W\d_]|\d+T\d+)*(?:DEBUG|INFO|NOTICE|TRACE)\b", re.IGNORECASE)
_DRAIN_S = 0.3  # for the last lines; longer only when a descendant holds the pipes open
_LOOK_S = 0.25  # between looks at a broker that is away
_LATE_S = 30.0  # for the kernel, at the end of all
_LEFTOVERS_S = 1.0  # a group that lost its leader gets a short SIGTERM before SIGKILL

_MOST_KEPT = 4096  # characters of a line that is kept; its log has all of it

# A first start that fails so fails again: the file is missing or no program. Later ones may find
# what a deployment has just taken away.
_HOPELESS = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.E2BIG})
# The system has no room for it now.
_PASSING = frozenset({
    errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY,
})  # fmt: skip

logger = logging.getLogger(__name__)


class ProcessHost(Protocol):
    """What an actor needs of its supervisor."""

    async def start_child(
        self,
        instance: WorkerInstance,
        incarnation: str,
        on_line: OnLine,
        on_exit: Callable[[], None],
    ) -> Child:
        """Start a life of the worker; may raise OSError."""
        ...

    async def bury(self, child: Child, reason: str) -> str:
        """Tell the bus that this life is over; never raises, never takes long.

        Returns:
            What became of the messages it had, in words; "" of none.
        """
        ...

    def forget_group(self, child: Child) -> None:
        """The child's group is empty, nobody needs to end it any more."""
        ...

    def explain_exit(self, child: Child, code: int) -> str:
        """What is known to be behind an exit code, in words; "" of nothing."""
        ...

    async def ask_to_end(self, worker: str, timeout_s: float | None) -> bool:
        """Ask a worker by message to finish what is queued; says whether that was possible.

        Args:
            worker: Its name.
            timeout_s: Seconds that its jobs in hand get; None: what it usually gives them.
        """
        ...

    @property
    def is_broker_away(self) -> bool:
        """Whether the broker cannot be used now."""
        ...

    @property
    def was_broker_away(self) -> bool:
        """Whether it is away, or was until a moment ago."""
        ...

    def emit(self, event: Event) -> None:
        """Tell the listeners."""
        ...


class WorkerProcess:
    """Keeps one worker as wanted. All orders only note what is wanted: the one task acts."""

    def __init__(
        self,
        instance: WorkerInstance,
        hurry: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.instance = instance
        self.name = instance.name
        self.joins = instance.spec.joins
        self.state: State = "starting"
        self.child: Child | None = None
        self.code: int | None = None
        self.left = ""  # what became of the messages of the last life that ended
        self.usage: Usage | None = None
        self.survivors = ""  # what could not be ended of the last life, in words
        self._house: ProcessHost
        self._hurry = hurry
        self._clock = clock
        self._nudge = asyncio.Event()
        self._wanted = True
        self._again = False  # take this life down and begin the next at once
        self._final = False  # begin no other life, leave when this one is over
        self._held = False  # down because somebody said so
        self._jobs_until: float | None = None  # what its jobs get to end, by the clock, if told
        self._history = restart_policy.History()
        self._lives = 0
        self._has_worked = False  # in some life: what is missing now was there
        self._ready_at: float | None = None
        self._last_lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        self._reason: str | None = None  # why it failed or waits, without what it wrote itself
        self._last_error: str | None = None  # of this life
        self._last_words: str | None = None  # likewise, of stdout

    # Orders

    def start(self) -> None:
        """Run the worker, whatever became of it before; one that runs or starts is left alone."""
        if self._held or (self.child is None and self.state != "starting"):
            self.restart()

    def stop(self, timeout_s: float | None = None) -> None:
        """Take the worker down and leave it so.

        Args:
            timeout_s: Seconds that its jobs in hand get, from now; None: the usual.
        """
        self._give(timeout_s)
        self._wanted, self._held, self._again = False, True, False
        self._nudge.set()

    def restart(self, timeout_s: float | None = None) -> None:
        """Take the worker down if it runs, and start it anew without delay; see stop()."""
        if self._final:
            return
        self._give(timeout_s)
        self._wanted, self._held, self._again = True, False, True
        self._history = restart_policy.History()
        self._nudge.set()

    def dismiss(self) -> None:
        """Start no other life; a worker that is ready may finish this one by itself."""
        self._final = True
        if self.state != "ready":
            self._wanted = False
        self._nudge.set()

    # What the supervisor learns from the bus

    def note_ready(self, incarnation: str) -> None:
        """The registry has this incarnation as ready; news of an earlier life is ignored."""
        child = self.child
        if (
            child is None
            or self.state != "starting"
            or not incarnation.startswith(child.incarnation)
        ):
            return
        self._ready_at = self._clock()
        self._has_worked = True
        self._enter("ready")
        self._house.emit(Ready(self.name))

    # What is known

    @property
    def is_wanted(self) -> bool:
        """Whether it is to run."""
        return self._wanted

    @property
    def is_held(self) -> bool:
        """Whether somebody said that it is to be down."""
        return self._held

    @property
    def is_final(self) -> bool:
        """Whether it begins no other life."""
        return self._final

    @property
    def lives(self) -> int:
        """How many it has begun."""
        return self._lives

    @property
    def due_life(self) -> int:
        """The number of the life that all orders so far lead to."""
        return self._lives + 1 if self._again else self._lives

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will unless somebody says so."""
        return self.child is None and not self._held and self.state in {"exited", "failed"}

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The newest lines that it wrote, over all its lives."""
        return tuple(self._last_lines)

    def record(self) -> ProcessRecord:
        """What `ps` shows of it."""
        child, usage = self.child, self.usage
        return ProcessRecord(
            name=self.name,
            state=self.state,
            joins=self.joins,
            pid=child.pid if child else None,
            incarnation=child.incarnation if child else None,
            started_at=child.started_at if child else None,
            restarts=max(0, self._lives - 1),
            exit_code=self.code,
            cpu_percent=usage.cpu_percent if child and usage else None,
            rss_bytes=usage.rss_bytes if child and usage else None,
            reason=self._reason if self.state in {"failed", "backoff"} else None,
            error=self._error() if self.state in {"failed", "backoff"} else None,
        )

    # The one task

    async def run(self, house: ProcessHost) -> None:
        """Keep the worker as wanted until it is dismissed and down."""
        self._house = house
        while True:
            if self._wanted:
                await self._try_to_live()
            elif self._final:
                return
            else:
                await self._next_order()

    async def _try_to_live(self) -> None:
        """One life; an error in looking after it costs this worker a life, and nobody else."""
        try:
            await self._live()
        except Exception as error:
            logger.exception("%s: an error in its supervision", self.name)
            if self.child is not None:
                await shutdown.terminate_group(self.child, self._hurry)
                self.child = None
            self._last_error = f"an error in pbus: {type(error).__name__}: {error}"
            await self._follow(1, how=self._last_error)

    async def _live(self) -> None:
        """One life, and the wait after it."""
        self._again = False
        self.survivors = ""
        child = await self._begin()
        if child is None:
            return
        try:
            was_told = await self._watch(child)
            if was_told:
                self._enter("stopping")
                ask = self._ask if self._ready_at is not None and self.joins else None
                began = self._clock()
                is_down = await shutdown.terminate(
                    child, ask, self._hurry, given_s=lambda: self._given_s(began)
                )
                if not is_down and not await self._ends_late(child):
                    return
            code = await child.wait()
            open_messages = await self._end(child, code)
        finally:
            child.close()
        if not was_told:
            await self._follow(code, open_messages)
        elif not self._wanted:
            self._enter("exited", _joined(restart_policy.describe_exit(code), open_messages))

    async def _begin(self) -> Child | None:
        incarnation = new_token()
        self._lives += 1
        self._ready_at = None
        self._reason = self._last_error = self._last_words = None
        self.code = None
        self._enter("starting")
        try:
            child = await self._house.start_child(
                self.instance, incarnation, self._on_line, self._nudge.set
            )
        except (OSError, ValueError) as error:
            await self._could_not_start(error)
            return None
        self.child = child
        self._house.emit(Started(self.name, child.pid, incarnation))
        self._note(f"started, pid {child.pid}")
        if not self.joins:
            self.note_ready(incarnation)
        return child

    async def _could_not_start(self, error: OSError | ValueError) -> None:
        number = error.errno if isinstance(error, OSError) else None
        text = (isinstance(error, OSError) and error.strerror) or str(error)
        filename = error.filename if isinstance(error, OSError) else None
        reason = f"cannot be started: {text}" + (f": {filename}" if filename else "")
        reason = reason.encode(errors="backslashreplace").decode()  # a file name need not be text
        self._last_error = reason
        self._note(reason)
        if number in _HOPELESS or isinstance(error, ValueError):
            await self._follow_obstacle(reason, may_pass=self._has_worked)
        elif number in _PASSING:
            await self._follow_obstacle(reason, may_pass=True)
        else:
            await self._follow(1, how=reason)

    async def _follow_obstacle(self, reason: str, *, may_pass: bool) -> None:
        """The program did not run at all: give it up, or look again until it can."""
        if not may_pass or self._final or self.instance.spec.restart == "never":
            self._give_up(reason)
            return
        again = restart_policy.after_obstacle(self._history)
        self._history = again.history
        await self._back_off(again.delay_s, reason)

    async def _ends_late(self, child: Child) -> bool:
        """Say that a process does not end; whether it did before we have to go."""
        self._note_survivors(child)
        self._enter("stopping", self.survivors)
        while child.code is None and not self._final:
            await self._next_order()
        # The kernel may take its time for what was killed, but not for what may not be.
        gives_up_at = self._clock() + (_LATE_S if child.send_signal(signal.SIGKILL) else 0.0)
        while child.code is None and (left := gives_up_at - self._clock()) > 0:
            await self._next_order(left)
        return child.code is not None

    def _note_survivors(self, child: Child) -> None:
        self.survivors = shutdown.describe_survivors(child)
        self._last_error = self.survivors
        self._note(self.survivors)

    async def _watch(self, child: Child) -> bool:
        """Wait until the process ends by itself (False) or is to be taken down (True)."""
        while child.code is None and self._wanted and not self._again:
            await self._next_order()
        return child.code is None

    async def _end(self, child: Child, code: int) -> str:
        """A process ended: see to its last lines, the bus, and the rest of its group.

        Returns:
            What became of the messages that it left open, in words; "" where that goes without
            saying.
        """
        reason = restart_policy.describe_exit(code)
        patience = shutdown.Deadlines(term_s=_LEFTOVERS_S)
        _, left, is_clear = await asyncio.gather(
            self._say_exited(child, code, reason),
            self._house.bury(child, reason),
            shutdown.terminate_group(child, self._hurry, patience),
        )
        if is_clear:
            self.survivors = ""
            self._house.forget_group(child)
        else:
            self._note_survivors(child)
        self.left = left
        if left:
            self._note(left)
        return left

    async def _say_exited(self, child: Child, code: int, reason: str) -> None:
        await child.wait_drained(_DRAIN_S)
        self.child = None
        self.code = code
        self._note(reason)
        if hint := self._house.explain_exit(child, code):
            self._last_error = hint
            self._note(hint)
        self._house.emit(Exited(self.name, child.pid, code))

    async def _follow(self, code: int, open_messages: str = "", *, how: str = "") -> None:
        """Carry out what the restart policy says about an exit; `how` instead of its code."""
        how = how or restart_policy.describe_exit(code)
        if code == restart_policy.UNLOADABLE and self.instance.spec.worker is not None:
            await self._follow_obstacle("its class cannot be loaded", may_pass=self._has_worked)
            return
        ready_s = 0.0 if self._ready_at is None else self._clock() - self._ready_at
        mode = "never" if self._final else self.instance.spec.restart
        is_excused = self._house.was_broker_away
        decision = restart_policy.after_exit(
            mode, code, self._history, self._clock(), ready_s, is_excused=is_excused
        )
        match decision:
            case restart_policy.Restart(delay_s, history):
                self._history = history
                await self._back_off(delay_s, _joined(how, open_messages))
            case restart_policy.GiveUp(reason):
                self._give_up(reason.replace(restart_policy.describe_exit(code), how, 1))
            case restart_policy.Finish():
                self._wanted = self._again
                self._enter("exited", _joined(how, open_messages))

    async def _back_off(self, delay_s: float, why: str) -> None:
        self._reason = why
        self._enter("backoff", f"{why}, restarts in {delay_s:g} s")
        deadline = self._clock() + delay_s
        while self._wanted and not self._again and (left := deadline - self._clock()) > 0:
            await self._next_order(left)
        await self._await_broker(why)
        if not self._wanted:
            self._enter("exited" if self._held or self.code == 0 else "failed", why)

    async def _await_broker(self, why: str) -> None:
        """Begin no life that could not join: it would only end again."""
        if not self.joins or not self._house.is_broker_away:
            return
        self._enter("backoff", f"{why}, waits for the broker")
        while self._wanted and not self._again and self._house.is_broker_away:
            await self._next_order(_LOOK_S)

    def _give_up(self, reason: str) -> None:
        self._wanted = self._again
        self._reason = reason
        self._enter("failed", reason)
        self._note(f"failed: {reason}")
        error = self._error()
        told = None if error == reason else error
        self._house.emit(GaveUp(self.name, reason, self.last_lines, told))

    # Small things

    def _error(self) -> str | None:
        """The line of this life that most likely says what went wrong; None where none does."""
        if self._last_error is not None:
            return self._last_error
        has_ended_itself = self.code is not None and self.code > 0
        return self._last_words if has_ended_itself else None

    async def _ask(self) -> bool:
        return await self._house.ask_to_end(self.name, self._given_s(self._clock()))

    def _give(self, timeout_s: float | None) -> None:
        self._jobs_until = None if timeout_s is None else self._clock() + timeout_s

    def _given_s(self, since: float) -> float | None:
        """The seconds that an order gave its jobs, counted from a time; None where none said so."""
        return None if self._jobs_until is None else max(0.0, self._jobs_until - since)

    async def _next_order(self, limit_s: float | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._nudge.wait()
        self._nudge.clear()

    def _enter(self, state: State, detail: str = "") -> None:
        if state == self.state and not detail:
            return
        self.state = state
        self._house.emit(StateChanged(self.name, state, detail))

    def _note(self, text: str) -> None:
        self._house.emit(Line(self.name, "pbus", text, time.time()))

    def _on_line(self, stream: Stream, text: str) -> None:
        kept = text[:_MOST_KEPT]
        self._last_lines.append(kept)
        if (words := kept.strip()) and not _CHATTER.match(words):
            if stream == "err":
                self._last_error = words
            else:
                self._last_words = words
        self._house.emit(Line(self.name, stream, text, time.time()))


def _joined(*words: str) -> str:
    return ", ".join(filter(None, words))
