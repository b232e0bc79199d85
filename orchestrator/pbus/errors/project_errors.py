"""Errors of topologies and projects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pbus.errors.base_error import PbusError
from pbus.errors.process_errors import ProcessError


class TopologyError(PbusError):
    """A topology file has problems; all of them are reported at once.

    Attributes:
        file: The file.
        problems: One line of text a problem, each beginning with ``file:line``.
    """

    def __init__(self, file: Path, problems: Sequence[str]) -> None:
        count = len(problems)
        super().__init__(
            f"{file} has {count} problem{'s' if count != 1 else ''}\n" + "\n".join(problems)
        )
        self.file = file
        self.problems = tuple(problems)


class GraphFileError(PbusError):
    """A saved graph cannot be read.

    Attributes:
        file: The file.
    """

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(
            f"{file}: {reason}", hint="`pbus graph --format json > graph.json` saves one"
        )
        self.file = file


class RecordingFileError(PbusError):
    """A recording cannot be read or begun.

    Attributes:
        file: The file.
    """

    def __init__(self, file: Path, problem: str, *, hint: str | None = None) -> None:
        hint = hint or "`pbus record -o FILE` makes one"
        super().__init__(f"the recording {file}: {problem}", hint=hint)
        self.file = file


class ReplayError(PbusError):
    """A recording cannot be replayed by the chosen names."""

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        hint = hint or "`pbus seq --from FILE` shows the workers and messages of a recording"
        super().__init__(f"cannot replay: {problem}", hint=hint)


class McapMissingError(PbusError):
    """A recording in MCAP needs a package that is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "recordings in MCAP need the Python module 'mcap', which is not installed",
            hint="pip install 'pbus-orchestrator[mcap]', or name the file *.jsonl",
        )


class McpMissingError(PbusError):
    """Tools by the Model Context Protocol need a package that is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "`pbus mcp` needs the Python module 'mcp', which is not installed",
            hint="pip install 'pbus-orchestrator[mcp]'",
        )


class PeersMissingError(PbusError):
    """`pbus bench --peers` needs other systems that are not installed."""

    def __init__(self, missing: str, install: str) -> None:
        super().__init__(
            f"`pbus bench --peers` needs {missing}, which is not installed",
            hint=install,
        )


class ProjectRunningError(ProcessError):
    """The project is already up on this machine."""

    def __init__(self, name: str, folder: Path, pid: int) -> None:
        super().__init__(
            f"project {name!r} in {folder} is already running (pid {pid})",
            hint="`pbus ps` shows it, `pbus down` stops it",
        )
        self.name = name
        self.pid = pid


class RenamedProjectError(ProjectRunningError):
    """The project is up under the name that its file had before."""

    def __init__(self, name: str, before: str, pid: int) -> None:
        ProcessError.__init__(
            self,
            f"this file already runs as project {before!r} (pid {pid}): its name cannot change to"
            f" {name!r} while it runs",
            hint=f"`pbus down -p {before}`, then `pbus up`",
        )
        self.name = before
        self.pid = pid


class NothingRunningError(ProcessError):
    """No running project matches what was asked for."""

    def __init__(self, what: str, others: Sequence[str] = ()) -> None:
        start = "start one with `pbus up`"
        named = "; running: " + ", ".join(others) + " (-p NAME)" if others else ""
        super().__init__(f"no running project {what}", hint=start + named)


class StrangeFileError(NothingRunningError):
    """A topology that was only found, not named, has a broker with which it did not run here."""

    def __init__(self, file: Path, url: str) -> None:
        ProcessError.__init__(
            self,
            f"{file} was never started here by you with the broker at {url}: not connected",
            hint=f"say so to connect to it: -f {file}",
        )


class OrphanedProjectError(NothingRunningError):
    """A supervisor was killed together with its guard, and its processes go on without them.

    Attributes:
        record: The record that the supervisor wrote (a ProjectRecord).
    """

    def __init__(self, name: str, record: Any, pids: Sequence[int]) -> None:
        shown = ", ".join(map(str, pids))
        ProcessError.__init__(
            self,
            f"project {name!r} has no supervisor any more, and no guard: left are pids {shown}",
            hint="`pbus down` ends them, `pbus up` starts the project again",
        )
        self.name = name
        self.record = record


class UnseenProjectError(ProcessError):
    """A running project is one process without a broker, so no other process sees into it."""

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(
            f"project {name!r} runs in one process (pid {pid}) on memory://,"
            " which no other process can look into",
            hint="look at its terminal, attach a debugger there, or see `pbus stack WORKER`; with a"
            " broker (leave `backend: memory` out) this works, and `pbus down` always does",
        )
        self.name = name
        self.pid = pid


class LogsElsewhereError(ProcessError):
    """The logs of a project are where its supervisor runs, which is not this machine."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the logs of {name!r} are on the machine of its supervisor, which is not this one",
            hint="follow it there, or follow messages and events only",
        )
        self.name = name


class NoStoredMessagesError(ProcessError):
    """A project stores no messages, so it has no queues."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"project {name!r} keeps no messages: it delivers at most once",
            hint="set `delivery: at-least-once` under `bus` in the topology",
        )
        self.name = name


class AmbiguousProjectError(ProcessError):
    """Several projects run and none was chosen."""

    def __init__(self, names: Sequence[str]) -> None:
        are_namesakes = any("(" in name for name in names)  # then they are told by their files
        super().__init__(
            f"several projects are running: {', '.join(names)}",
            hint=f"choose one with {'-f FILE' if are_namesakes else '-p NAME'}",
        )
        self.names = tuple(names)


class DeadLetterNotFoundError(ProcessError):
    """No dead letter has these keys; those with other keys that were given have been dealt with.

    Attributes:
        keys: The unknown keys.
        done: How many others were dealt with.
    """

    def __init__(self, keys: Sequence[str], done: int = 0) -> None:
        super().__init__(f"no dead letter has the key {', '.join(keys)}", hint="see `pbus dlq ls`")
        self.keys = tuple(keys)
        self.done = done
