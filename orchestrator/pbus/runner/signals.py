"""Signal handlers of runners, installed while they run."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pbus.concurrency.forks import drop_signal, hold_signal

logger = logging.getLogger(__name__)

Callback = Callable[[signal.Signals], None]

_listeners: dict[signal.Signals, list[Callback]] = {}  # several runners may share a process
_before: dict[signal.Signals, Any] = {}  # what Python had before the first of them


@contextlib.contextmanager
def signals_to(callback: Callback, choice: Mapping[signal.Signals, bool | None]) -> Iterator[None]:
    """Handle signals within a block; afterwards the handlers of before are back.

    Outside of the main thread nothing happens.

    Args:
        callback: Called with each signal.
        choice: Whether to handle a signal; with None, where the program has no handler of its own.
    """
    chosen = [number for number, is_wanted in choice.items() if _is_chosen(number, is_wanted)]
    had = [number for number in chosen if _listen(number, callback)]
    try:
        yield
    finally:
        for number in had:
            _forget(number, callback)


def _is_chosen(number: signal.Signals, is_wanted: bool | None) -> bool:  # noqa: FBT001
    if is_wanted is None:
        return number in _listeners or signal.getsignal(number) is signal.SIG_DFL
    return is_wanted


def _listen(number: signal.Signals, callback: Callback) -> bool:
    if number in _listeners:
        _listeners[number].append(callback)
        return True
    before = signal.getsignal(number)
    try:
        asyncio.get_running_loop().add_signal_handler(number, _deliver, number)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        logger.debug("%s is not handled here: %s", number.name, error)
        return False
    _before[number] = before
    hold_signal(number, before)
    _listeners[number] = [callback]
    return True


def _deliver(number: signal.Signals) -> None:
    for callback in list(_listeners.get(number, ())):
        callback(number)


def _forget(number: signal.Signals, callback: Callback) -> None:
    _listeners[number].remove(callback)
    if not _listeners[number]:
        del _listeners[number]
        asyncio.get_running_loop().remove_signal_handler(number)
        drop_signal(number)
        signal.signal(number, _before.pop(number))
