"""What a launcher left behind in this process: ignored and blocked signals."""

import contextlib
import signal

_PYTHONS = frozenset({signal.SIGPIPE, signal.SIGXFSZ})  # ignored by Python; its children get them
_USERS = frozenset({signal.SIGHUP})  # ignored by nohup


def undo_signals() -> None:
    """Block no signal and ignore none, for this process and for all that it starts.

    SIGHUP stays ignored where it is: that is what nohup is for. For programs of pbus itself, in
    their main thread, before they install handlers.
    """
    for number in signal.valid_signals() - _PYTHONS - _USERS:
        if signal.getsignal(number) is signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            with contextlib.suppress(OSError, ValueError):
                signal.signal(
                    number, signal.default_int_handler if is_interrupt else signal.SIG_DFL
                )
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
