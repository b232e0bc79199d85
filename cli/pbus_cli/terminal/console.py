"""The output of a command: data, remarks, errors and exit codes."""

import contextlib
import errno
import io
import json
import os
import re
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
from pbus_cli.terminal.clean import OWN_ESCAPE, clean, clean_json

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


_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")


class TerminatedError(BaseException):
    """SIGTERM ended the command; like KeyboardInterrupt it passes every `except Exception`."""


class OutputError(OSError):
    """The output cannot be written, though there is a reader: a full disk, say."""


def exit_code(error: BaseException) -> int:
    """The exit code that stands for an error."""
    for classes, code in _CODES:
        if isinstance(error, classes):
            return code
    return FAILED


def say(text: str) -> None:
    """Print data; the stream may gather it.

    Raises:
        BrokenPipeError: The reader is gone.
        OutputError: It cannot be written for another reason.
    """
    with output_errors():
        sys.stdout.write(clean(text) + "\n")


def say_raw(text: str) -> None:
    """Print data that the user wants as it is, control characters and all; raises as say() does."""
    with output_errors():
        sys.stdout.write(text + "\n")


def flush() -> None:
    """Write the data that the stream has gathered; raises as say() does."""
    with output_errors():
        sys.stdout.flush()


@contextlib.contextmanager
def output_errors() -> Iterator[None]:
    """Tell errors of writing the output from all other OSErrors."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from None


def note(text: str) -> None:
    """Print a remark for the person at the terminal; one that cannot be written is dropped."""
    try:
        sys.stderr.write(clean(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _drop(sys.stderr)


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
    say(json_text(value, indent=indent))


def json_text(value: Any, *, indent: bool = False) -> str:
    """A value as JSON that stdout's encoding carries, whatever bytes its texts came from."""
    import msgspec  # noqa: PLC0415 - keeps --help fast

    try:
        encoded = msgspec.json.encode(value).decode(errors="replace")
    except UnicodeEncodeError:  # a file name that is no text
        encoded = json.dumps(msgspec.to_builtins(value), indent=2 if indent else None)
    else:
        if indent:
            encoded = msgspec.json.format(encoded, indent=2)
    return clean_json(encoded) if is_unicode(sys.stdout) else _NOT_ASCII.sub(_escaped, encoded)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def is_unicode(stream: TextIO) -> bool:
    """Whether a stream's encoding carries every character."""
    return (stream.encoding or "utf-8").lower().replace("-", "") in {"utf8", "utf16", "utf32"}


def paint(text: str, sgr: str, stream: TextIO) -> str:
    """Colour a text where the stream is a terminal that wants colours."""
    return f"{OWN_ESCAPE}[{sgr}m{text}{OWN_ESCAPE}[0m" if has_colors(stream) else text


def have_streams() -> None:
    """Make the standard streams take whatever is written to them.

    What goes to a stream that the caller has closed goes nowhere; characters that a stream's
    encoding lacks are escaped.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # or a socket would be given this number, and remarks go to it
            os.open(os.devnull, os.O_RDWR)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(fd, "w", closefd=False))  # noqa: SIM115 - as long as we run
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_terminal() -> bool:
    """Whether stdout is a terminal that a live display can be drawn on."""
    return sys.stdout.isatty() and not is_dumb()


def is_dumb() -> bool:
    """Whether the terminal knows no movements of the cursor and no colours, as far as is told."""
    return os.environ.get("TERM", "").lower() in {"", "dumb", "unknown"}


def has_colors(stream: TextIO) -> bool:
    """Whether colours may be written to a stream."""
    if os.environ.get("NO_COLOR"):
        return False
    return stream.isatty() and not is_dumb()


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Turn whatever ends a command into a text on stderr and an exit code.

    Raises:
        typer.Exit: With the code of the error.
    """
    try:
        yield
        flush()
    except BrokenPipeError:
        _drop(sys.stdout)
        raise typer.Exit(DONE) from None
    except (KeyboardInterrupt, TerminatedError) as error:
        _drop(sys.stdout)  # it may be what blocks
        is_interrupt = isinstance(error, KeyboardInterrupt)
        raise typer.Exit(INTERRUPTED if is_interrupt else TERMINATED) from None
    except (PbusError, OSError, BaseExceptionGroup) as error:
        known = _known_error(error)
        if known is None:
            raise
        fail(*_texts(known))
        raise typer.Exit(exit_code(known)) from None


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Wrap the whole command: end with an error where its output was not written.

    Raises:
        SystemExit: With the command's code, or that of the error.
    """
    code: Any = DONE
    try:
        yield
    except SystemExit as end:
        code = end.code
    except OSError as error:  # of --help, which runs outside of any verb
        fail(f"the output cannot be written: {error.strerror}")
        code = FAILED
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            _drop(stream)
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):
                code = code or FAILED
    raise SystemExit(code)


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
    if isinstance(error, OutputError):
        return f"the output cannot be written: {error.strerror}", None
    hint = "`ulimit -n 1024` allows more" if error.errno in {errno.EMFILE, errno.ENFILE} else None
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{where}" if error.strerror else str(error), hint


def _drop(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere, or the interpreter's last flush complains."""
    with contextlib.suppress(OSError, ValueError):
        fd = stream.fileno()
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, fd)
        os.close(devnull)
