"""Where a command's output goes and how it ends: data, remarks, errors and exit codes."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO

import typer

from pbus.errors import (
    AmbiguousProjectError,
    BusFullError,
    BusUnavailableError,
    BusUrlError,
    NothingRunningError,
    PbusError,
    TopologyError,
    UnseenProjectError,
    WorkerNameError,
    WorkerNotFoundError,
)

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
TIMED_OUT: Final = 4
INTERRUPTED: Final = 130
TERMINATED: Final = 143

_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((TopologyError, AmbiguousProjectError, BusUrlError, WorkerNameError), USAGE),
    ((NothingRunningError, BusUnavailableError, UnseenProjectError), UNREACHABLE),
    ((WorkerNotFoundError, BusFullError, TimeoutError), TIMED_OUT),
)


class TerminatedError(BaseException):
    """SIGTERM ended the command; like KeyboardInterrupt it passes every `except Exception`."""


def exit_code(error: BaseException) -> int:
    """The exit code that stands for an error."""
    for classes, code in _CODES:
        if isinstance(error, classes):
            return code
    return FAILED


def say(text: str) -> None:
    """Print data."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Print a remark for the person at the terminal."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Print a remark that should not be overlooked."""
    note(f"{paint('warning:', '1;33', sys.stderr)} {text}")


def fail(text: str, hint: str | None = None) -> None:
    """Print what went wrong and what to do about it."""
    note(f"{paint('error:', '1;31', sys.stderr)} {text}")
    if hint:
        note(f"{paint('hint:', '1', sys.stderr)} {hint}")


def say_json(value: Any, *, indent: bool = False) -> None:
    """Print a value as JSON, on one line unless asked otherwise."""
    import msgspec  # noqa: PLC0415 - keeps --help fast

    encoded = msgspec.json.encode(value)
    if indent:
        encoded = msgspec.json.format(encoded, indent=2)
    say(encoded.decode())


def paint(text: str, sgr: str, stream: TextIO) -> str:
    """Colour a text where the stream is a terminal that wants colours."""
    return f"\x1b[{sgr}m{text}\x1b[0m" if has_colors(stream) else text


def have_streams() -> None:
    """Where the caller has closed stdout or stderr, what goes there goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - as long as we run


def is_terminal() -> bool:
    """Whether stdout is a terminal that a live display can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def has_colors(stream: TextIO) -> bool:
    """Whether colours may be written to a stream."""
    if os.environ.get("NO_COLOR"):
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Turn whatever ends a command into a text on stderr and an exit code.

    Raises:
        typer.Exit: With the code of the error.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        raise typer.Exit(DONE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except TerminatedError:
        raise typer.Exit(TERMINATED) from None
    except (PbusError, OSError, BaseExceptionGroup) as error:
        known = _known_error(error)
        if known is None:
            raise
        fail(*_texts(known))
        raise typer.Exit(exit_code(known)) from None


def _known_error(error: BaseException) -> PbusError | OSError | None:
    if isinstance(error, PbusError | OSError):
        return error
    if isinstance(error, BaseExceptionGroup):
        group = error.subgroup((PbusError, OSError))
        whole, part = _leaves(error), _leaves(group) if group else []
        if len(whole) == len(part):
            first = part[0]
            return first if isinstance(first, PbusError | OSError) else None
    return None


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return leaves


def _texts(error: PbusError | OSError) -> tuple[str, str | None]:
    if isinstance(error, PbusError):
        return error.message, error.hint
    if isinstance(error, TimeoutError):
        return str(error) or "timed out", None
    return str(error), None


def _drop_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of complaining about the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
