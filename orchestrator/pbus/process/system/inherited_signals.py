"""Ignored and blocked signals that this process inherited."""

import contextlib
import signal

_PYTHONS = frozenset({signal.SIGPIPE, signal.SIGXFSZ})  # ignored by Python; its children get them
_USERS = frozenset({signal.SIGHUP})  # ignored by nohup


def undo_signals() -> None:
    """Unblock all signals and ignore none, for this process and its children.

    SIGHUP stays ignored where it is, for nohup. For programs of pbus itself, in their main thread,
    before they install handlers.
    """
    for number in signal.valid_signals() - _PYTHONS - _USERS:
        if signal.getsignal(number) is signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            with contextlib.suppress(OSError, ValueError):
                signal.signal(
                    number, signal.default_int_handler if is_interrupt else signal.SIG_DFL
                )
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
