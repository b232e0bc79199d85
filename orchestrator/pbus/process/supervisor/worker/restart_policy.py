"""The restart policy as a pure function: exit code, history and clock in, decision out."""

import signal
from typing import Literal, TypeAlias

import msgspec

from pbus.concurrency.backoff import delay_after

RestartMode = Literal["never", "on-failure", "always"]

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0  # a worker that was ready for so long starts with a new history
WINDOW_S = 60.0
UNLOADABLE = 78  # the exit code of a hosted worker whose class is not there (EX_CONFIG)
MAX_EXITS = 5  # within the window; delays alone add up to 7.5 s, so only quick crashes get there


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


def after_exit(
    mode: RestartMode,
    code: int,
    history: History,
    now: float,
    ready_for_s: float,
    *,
    is_excused: bool = False,
) -> Decision:
    """Decide after a worker's process ended by itself.

    Args:
        mode: The worker's `restart` in the topology.
        code: The exit code; negative for a signal.
        history: Of the last decision, or a new one.
        now: Monotonic seconds.
        ready_for_s: Seconds that the process was ready.
        is_excused: The broker was away: the exit does not count.
    """
    if mode == "never" or (mode == "on-failure" and code == 0):
        return Finish() if code == 0 else GiveUp(describe_exit(code))
    if ready_for_s >= STEADY_S:
        history = History()
    exits = tuple(at for at in history.exits if now - at < WINDOW_S)
    if not is_excused:
        exits = (*exits, now)
        if len(exits) >= MAX_EXITS:
            return GiveUp(
                f"{describe_exit(code)}, {len(exits)} times within {now - exits[0]:.0f} s"
            )
    return _after_delay(history.streak + 1, exits)


def after_obstacle(history: History) -> Restart:
    """Decide after a program that has worked is missing, or the system has no room.

    The worker is never given up: a retry is cheap, and a deployment may take its time.
    """
    return _after_delay(history.streak + 1, history.exits)


def _after_delay(streak: int, exits: tuple[float, ...]) -> Restart:
    return Restart(delay_after(streak, FIRST_DELAY_S, LONGEST_DELAY_S), History(streak, exits))


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
