"""Errors of users' code that would end the process: exits, interrupts, closed coroutines."""

import asyncio
import inspect
import opcode
from collections.abc import Callable
from typing import Any

from pbus.errors import HandlerDefinitionError, HandlerExitError

_RAISE = opcode.opmap["RAISE_VARARGS"]


def as_handler_error(
    error: BaseException, where: str, task: asyncio.Task[Any] | None = None
) -> BaseException | None:
    """Return the error to log and answer for one that a handler raised.

    Args:
        error: The raised error; no cancellation.
        where: The handler and its owner, as text.
        task: The task that ran it; None for code that does not wait and so cannot be closed.

    Returns:
        None for an error that is not the handler's own: Ctrl-C, or the end of a coroutine that is
        closed from outside. It is to be raised again.
    """
    if isinstance(error, GeneratorExit) and task is not None and not _is_running(task):
        return None
    if isinstance(error, KeyboardInterrupt) and not _is_raised_by_hand(error):
        return None
    if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
        return _exit_error(error, where)
    return error


async def contained(call: Callable[..., Any], where: str, *values: Any) -> Any:
    """Call an async hook and return its result; anything it raises becomes an Exception.

    Raises:
        HandlerExitError: It raised a BaseException that is no Exception.
        HandlerDefinitionError: It cannot be awaited.
        Exception: Raised by the hook.
    """
    task = asyncio.current_task()
    try:
        return await awaitable(call(*values), where)
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        raise _exit_error(error, where) from error
    except Exception:
        raise
    except BaseException as error:
        own = as_handler_error(error, where, task)
        if own is None:
            raise
        raise _exit_error(error, where) from error


def awaitable(result: Any, where: str) -> Any:
    """Return the result of calling an async hook.

    Raises:
        HandlerDefinitionError: It cannot be awaited.
    """
    if inspect.isawaitable(result):
        return result
    problem = f"it returned {type(result).__name__}, which cannot be awaited"
    raise HandlerDefinitionError(where, problem, hint="write it as 'async def'")


def _exit_error(error: BaseException, where: str) -> HandlerExitError:
    exit_error = HandlerExitError(where, error)
    exit_error.__cause__ = error
    return exit_error


def _is_running(task: asyncio.Task[Any]) -> bool:
    """Whether this is called in that task, and so not by code that closes its coroutine."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no loop runs
        return False


def _is_raised_by_hand(error: BaseException) -> bool:
    """Whether a `raise` statement of a user raised it; a signal interrupts any other instruction."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    if frame.f_globals.get("__name__") == "asyncio.runners":  # its handler of the signal
        return False
    return frame.f_code.co_code[trace.tb_lasti] == _RAISE
