"""How a command ends: its exit code, and what it says on stderr."""

import asyncio
import io
import json
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest
import typer

from pbus import errors
from pbus_cli.call.run_command import run
from pbus_cli.terminal import console


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TopologyError(Path("t.yaml"), ["t.yaml:1: no"]), 2),
        (errors.AmbiguousProjectError(["a", "b"]), 2),
        (errors.BusUrlError("ftp://x", ["redis://"]), 2),
        (errors.NothingRunningError("is here"), 3),
        (errors.BusUnavailableError("redis://h", "refused"), 3),
        (errors.WorkerNotFoundError("x", 5.0), 4),
        (errors.JobTimeoutError("1", "x", 1.0, "waiting"), 4),
        (errors.BusFullError("x", 10.0, "slow"), 4),
        (TimeoutError("late"), 4),
        (errors.JobFailedError("1", "x", "error", {"error": "no"}), 1),
        (errors.JobCancelledError("1", "x", None), 1),
        (errors.ProjectRunningError("p", Path("/p"), 7), 1),
        (errors.MessageTooLargeError("T", 2, 1), 1),
        (OSError(28, "No space left"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_errors_have_codes(error: Exception, code: int) -> None:
    """The table of the design."""
    assert code == ended_with(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (console.TerminatedError(), 143),
        (ExceptionGroup("tasks", [errors.NothingRunningError("is here")]), 3),
        (ExceptionGroup("a", [ExceptionGroup("b", [errors.BusUnavailableError("u", "r")])]), 3),
    ],
    ids=["ctrl-c", "sigterm", "group", "nested"],
)
def test_other_ends_have_codes(error: BaseException, code: int) -> None:
    """Signals, and errors out of a group of tasks."""
    assert code == ended_with(error)


def ended_with(error: BaseException) -> int:
    """The exit code of a command that raises this."""
    with pytest.raises(typer.Exit) as exit_, console.exit_codes():
        raise error
    return exit_.value.exit_code


def test_text_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """What happened and what to do, on stderr only, uncoloured in a pipe."""
    ended_with(errors.NothingRunningError("is here"))

    assert capsys.readouterr() == (
        "",
        "error: no running project is here\nhint: start one with `pbus up`\n",
    )


@pytest.mark.parametrize(
    "error",
    [KeyError("bug"), ExceptionGroup("g", [errors.NothingRunningError("x"), KeyError("bug")])],
    ids=["plain", "mixed"],
)
def test_bugs_keep_their_traceback(error: Exception) -> None:
    """What is no error of pbus is not dressed up as one."""
    with pytest.raises(type(error)), console.exit_codes():
        raise error


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": "größe 漢 \U0001f600"}, {"a": "größe 漢 \U0001f600"}),
        ({"a": os.fsdecode(b"d\xff")}, {"a": os.fsdecode(b"d\xff")}),
        ({"a": msgspec.Raw(b'"\xff"')}, {"a": "\ufffd"}),
    ],
    ids=["text", "file name", "foreign bytes"],
)
def test_json_fits_any_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, value: object, expected: object
) -> None:
    """And is read back as it was, as far as it was text."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    for indent in (False, True):
        text = console.json_text(value, indent=indent)

        assert expected == json.loads(text.encode(encoding).decode(encoding))


def test_sigterm_cancels_command() -> None:
    """The command's own clean-up runs, then it ends as terminated."""
    cleaned = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(5)
        finally:
            cleaned.append(True)

    with pytest.raises(console.TerminatedError):
        run(main())
    assert [True] == cleaned


def test_run_returns_result() -> None:
    """And puts the signal's handler back."""

    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    before = signal.getsignal(signal.SIGTERM)
    assert 7 == run(main())
    assert before == signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("term", "no_color", "colors"),
    [("xterm", "", True), ("xterm", "1", False), ("dumb", "", False), ("unknown", "", False)],
)
def test_colors_can_be_refused(
    monkeypatch: pytest.MonkeyPatch, term: str, no_color: str, colors: bool
) -> None:
    """NO_COLOR and a dumb terminal are respected."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    assert colors == console.has_colors(sys.stdout)
