"""The restart policy as a pure function: exit code, history and clock in, decision out."""

import signal
from typing import TypeAlias

import msgspec

from pbus.concurrency.backoff import delay_after
from pbus.topology.policy.policies import RestartSpec

STEADY_S = 60.0  # a worker that was ready for so long starts with a new history
UNLOADABLE = 78  # the exit code of a hosted worker whose class is not there (EX_CONFIG)


class History(msgspec.Struct, frozen=True):
    """Earlier exits of one worker.

    Attributes:
        streak: Exits since the worker was last steady (or the beginning).
        exits: Times of the exits within the window.
    """

    streak: int = 0
    exits: tuple[float, ...] = ()


class Restart(msgspec.Struct, frozen=True):
    """The worker is started again after a delay."""

    delay_s: float
    history: History


class GiveUp(msgspec.Struct, frozen=True):
    """The worker has failed and is not started again."""

    reason: str


class Finish(msgspec.Struct, frozen=True):
    """The worker has ended well and is not started again."""


Decision: TypeAlias = Restart | GiveUp | Finish


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a process that no command ended.

    Attributes:
        code: The exit code; negative for a signal.
        has_succeeded: It counts as a good end.
        at: Any monotonic clock, in seconds.
        ready_for_s: Seconds that the process was ready.
        is_excused: The broker was away: the exit does not count, whatever caused it.
    """

    code: int
    at: float
    has_succeeded: bool = False
    ready_for_s: float = 0.0
    is_excused: bool = False


def after_exit(spec: RestartSpec, end: Exit, history: History, share: float = 0.5) -> Decision:
    """Decide what follows an exit.

    Args:
        spec: The worker's `restart` in the topology.
        end: The exit.
        history: The last decision's, or a new one.
        share: A random number from 0 to 1, for the jitter of the delay.
    """
    if spec.policy == "never" or (spec.policy == "on-failure" and end.has_succeeded):
        return Finish() if end.has_succeeded else GiveUp(describe_exit(end.code))
    if end.ready_for_s >= STEADY_S:
        history = History()
    earlier = tuple(at for at in history.exits if end.at - at < spec.within_s)
    if end.is_excused:
        return _after_delay(spec, history.streak + 1, earlier, share)
    exits = (*earlier, end.at)
    if len(exits) >= spec.max_exits:
        return _give_up(spec, end, exits)
    return _after_delay(spec, history.streak + 1, exits, share)


def _give_up(spec: RestartSpec, end: Exit, exits: tuple[float, ...]) -> GiveUp:
    text = describe_exit(end.code)
    if spec.max_exits > 1:
        span_s = exits[-1] - exits[0]
        text += f", {len(exits)} times within {round(span_s, 0 if span_s >= 1 else 2):g} s"
    return GiveUp(text)


def after_obstacle(spec: RestartSpec, history: History, share: float = 0.5) -> Restart:
    """Decide what follows when a program is missing that has worked, or the system has no room.

    The worker is never given up: a retry is cheap, and a deployment may take its time.
    """
    return _after_delay(spec, history.streak + 1, history.exits, share)


def _after_delay(spec: RestartSpec, streak: int, exits: tuple[float, ...], share: float) -> Restart:
    delay_s = delay_after(streak, spec.initial_s, spec.max_s, spec.factor)
    return Restart(delay_s * (1 + spec.jitter * (2 * share - 1)), History(streak, exits))


def count_text(spec: RestartSpec, history: History) -> str:
    """The number of exits and the one that is the last, as the end of a text; "" for the first."""
    count = len(history.exits)
    if count <= 1:
        return ""
    return f" (exit {count} of {spec.max_exits} within {spec.within_s:.10g} s)"


def describe_exit(code: int) -> str:
    """Describe an exit code: `exited with code 1`, `was killed by SIGKILL`."""
    if code >= 0:
        return f"exited with code {code}"
    return f"was killed by {signal_name(-code)}"


def signal_name(number: int) -> str:
    """Return SIGKILL for 9; `signal 77` for one without a name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
