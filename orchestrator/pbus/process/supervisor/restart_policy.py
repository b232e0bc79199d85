"""The restart policy as a pure function: exit code, history and clock in, decision out."""

import signal
from typing import Literal, TypeAlias

import msgspec

from pbus.concurrency.backoff import delay_after

RestartMode = Literal["never", "on-failure", "always"]

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0  # ready for so long: whatever was wrong is over
WINDOW_S = 60.0
UNLOADABLE = 78  # the exit code of a hosted worker whose class is not there (EX_CONFIG)
MOST_EXITS = 5  # within the window; delays alone add up to 7.5 s, so only quick crashes get there


class History(msgspec.Struct, frozen=True):
    """What the policy remembers of one worker.

    Attributes:
        streak: Exits since the worker was last steady (or the beginning).
        exits: Times of those exits that lie within the window.
    """

    streak: int = 0
    exits: tuple[float, ...] = ()


class Restart(msgspec.Struct, frozen=True):
    """Start it again after a delay."""

    delay_s: float
    history: History


class GiveUp(msgspec.Struct, frozen=True):
    """It failed, and is left alone."""

    reason: str


class Finish(msgspec.Struct, frozen=True):
    """It ended well, and is left alone."""


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
    """Decide what follows when a worker's process ended by itself.

    Args:
        mode: The worker's `restart` in the topology.
        code: The exit code; negative for a signal.
        history: What the last decision returned, or a new one.
        now: Any clock that only goes forward, in seconds.
        ready_for_s: How long this life of the worker was ready.
        is_excused: The broker was away: the exit does not count, whatever caused it.
    """
    if mode == "never" or (mode == "on-failure" and code == 0):
        return Finish() if code == 0 else GiveUp(describe_exit(code))
    if ready_for_s >= STEADY_S:
        history = History()
    exits = (*(at for at in history.exits if now - at < WINDOW_S), *(() if is_excused else (now,)))
    if not is_excused and len(exits) >= MOST_EXITS:
        return GiveUp(
            f"{describe_exit(code)}, {len(exits)} times within {exits[-1] - exits[0]:.0f} s"
        )
    return _after_delay(history.streak + 1, exits)


def after_obstacle(history: History) -> Restart:
    """Decide what follows when a program is missing that has worked, or the system has no room.

    It costs nothing to look again, and a deployment may take its time: never given up.
    """
    return _after_delay(history.streak + 1, history.exits)


def _after_delay(streak: int, exits: tuple[float, ...]) -> Restart:
    return Restart(delay_after(streak, FIRST_DELAY_S, LONGEST_DELAY_S), History(streak, exits))


def describe_exit(code: int) -> str:
    """An exit code in words: `exited with code 1`, `was killed by SIGKILL`."""
    if code >= 0:
        return f"exited with code {code}"
    return f"was killed by {signal_name(-code)}"


def signal_name(number: int) -> str:
    """SIGKILL for 9; `signal 77` for one without a name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
