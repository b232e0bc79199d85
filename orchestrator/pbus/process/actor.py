"""One worker's process over all its lives: started, watched, restarted, taken down, by one task."""

import asyncio
import collections
import contextlib
import errno
import re
import time
from collections.abc import Callable
from typing import Protocol

from pbus.ids import new_token
from pbus.observe import ProcessRecord, State
from pbus.process import ladder, restart
from pbus.process.events import (
    Event,
    Exited,
    GaveUp,
    Line,
    Ready,
    Started,
    StateChanged,
    Stream,
)
from pbus.process.spawn import Child, OnLine
from pbus.process.stats import Usage
from pbus.topology.model import WorkerInstance

_LAST_LINES = 20
# Log lines that say nothing about why a worker failed, after whatever stamps stand before.
_CHATTER = re.compile(r"(?:[\W\d_]|\d+T\d+)*(?:DEBUG|INFO|NOTICE|TRACE)\b", re.IGNORECASE)
_DRAIN_S = 0.3  # for the last lines; longer only when a descendant holds the pipes open
_LOOK_S = 0.25  # between looks at a broker that is away
_LEFTOVERS_S = 1.0  # a group that lost its leader gets a short SIGTERM before SIGKILL

# A start that fails so fails again: the file is missing or no program.
_HOPELESS = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.E2BIG})


class House(Protocol):
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


class WorkerActor:
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
        self.usage: Usage | None = None
        self._house: House
        self._hurry = hurry
        self._clock = clock
        self._nudge = asyncio.Event()
        self._wanted = True
        self._again = False  # take this life down and begin the next at once
        self._final = False  # begin no other life, leave when this one is over
        self._held = False  # down because somebody said so
        self._jobs_until: float | None = None  # what its jobs get to end, by the clock, if told
        self._history = restart.History()
        self._lives = 0
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
        self._history = restart.History()
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

    async def run(self, house: House) -> None:
        """Keep the worker as wanted until it is dismissed and down."""
        self._house = house
        while True:
            if self._wanted:
                await self._live()
            elif self._final:
                return
            else:
                await self._next_order()

    async def _live(self) -> None:
        """One life, and the wait after it."""
        self._again = False
        child = await self._begin()
        if child is None:
            return
        try:
            was_told = await self._watch(child)
            if was_told:
                self._enter("stopping")
                ask = self._ask if self._ready_at is not None and self.joins else None
                began = self._clock()
                await ladder.take_down(
                    child, ask, self._hurry, given_s=lambda: self._given_s(began)
                )
            code = await child.wait()
            open_messages = await self._end(child, code)
        finally:
            child.close()
        if not was_told:
            await self._follow(code, open_messages)
        elif not self._wanted:
            self._enter("exited", restart.describe_exit(code))

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
        except OSError as error:
            await self._could_not_start(error)
            return None
        self.child = child
        self._house.emit(Started(self.name, child.pid, incarnation))
        self._note(f"started, pid {child.pid}")
        if not self.joins:
            self.note_ready(incarnation)
        return child

    async def _could_not_start(self, error: OSError) -> None:
        reason = f"cannot be started: {error.strerror or error}"
        if error.filename:
            reason = f"{reason}: {error.filename}"
        self._last_error = reason
        self._note(reason)
        if error.errno in _HOPELESS:
            self._give_up(reason)
        else:
            await self._follow(1)

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
        reason = restart.describe_exit(code)
        patience = ladder.Deadlines(term_s=_LEFTOVERS_S)
        _, left, is_clear = await asyncio.gather(
            self._say_exited(child, code, reason),
            self._house.bury(child, reason),
            ladder.clear_group(child, self._hurry, patience),
        )
        if is_clear:
            self._house.forget_group(child)
        if code == 0 or not left:  # who ends well has seen to them: the registry is behind
            return ""
        self._note(left)
        return left

    async def _say_exited(self, child: Child, code: int, reason: str) -> None:
        await child.wait_drained(_DRAIN_S)
        self.child = None
        self.code = code
        self._note(reason)
        self._house.emit(Exited(self.name, child.pid, code))

    async def _follow(self, code: int, open_messages: str = "") -> None:
        """Carry out what the restart policy says about an exit."""
        if code == restart.UNLOADABLE and self.instance.spec.worker is not None:
            self._give_up("its class cannot be loaded")
            return
        ready_s = 0.0 if self._ready_at is None else self._clock() - self._ready_at
        mode = "never" if self._final else self.instance.spec.restart
        is_excused = self._house.was_broker_away
        decision = restart.after_exit(
            mode, code, self._history, self._clock(), ready_s, is_excused=is_excused
        )
        match decision:
            case restart.Restart(delay_s, history):
                self._history = history
                why = ", ".join(filter(None, (restart.describe_exit(code), open_messages)))
                await self._back_off(delay_s, why)
            case restart.GiveUp(reason):
                self._give_up(reason)
            case restart.Finish():
                self._wanted = self._again
                self._enter("exited", restart.describe_exit(code))

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
        self._last_lines.append(text)
        if (words := text.strip()) and not _CHATTER.match(words):
            if stream == "err":
                self._last_error = words
            else:
                self._last_words = words
        self._house.emit(Line(self.name, stream, text, time.time()))
