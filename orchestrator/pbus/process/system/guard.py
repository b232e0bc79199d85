"""The guard program: outlives its supervisor by some seconds and ends its processes.

Run as ``python -P -m pbus.process.system.guard PID`` by `pbus.process.services.guard_client`, in the
process of that pid, which registers groups and files on standard input. When that pipe closes, the
guard ends and removes them. It imports all its modules at the start: its installation may be removed.
"""

import contextlib
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pbus.process.system.groups import end_all
from pbus.process.system.inherited_signals import undo_signals

GRACE_S = 2.0
KILL_S = 4.5  # with the grace and the rest well under the 8 s that others wait for a guard
_PARENT_CHECK_S = 1.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class GuardState:
    """The registered process groups and files."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.groups: dict[int, float | None] = {}
        self.paths: list[Path] = []

    def apply(self, line: bytes) -> None:
        """Apply one line of the supervisor: a verb and its operands."""
        verb, *operands = line.decode().split(" ")
        if verb == "group":
            self.groups[int(operands[0])] = float(operands[1]) if operands[1:] else None
        elif verb == "forget":
            self.groups.pop(int(operands[0]), None)
        elif verb == "path":
            self.paths.append(Path(os.fsdecode(bytes.fromhex(operands[0]))))
        elif verb == "token":
            self.token = operands[0]


def listen(state: GuardState, supervisor: int) -> None:
    """Apply the lines of the supervisor until it is gone."""
    rest = b""
    while True:
        if select.select([0], [], [], _PARENT_CHECK_S)[0]:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                _apply(state, line)
        elif os.getppid() != supervisor:  # another process holds the other end of the pipe
            return


def remove(path: Path) -> None:
    """Remove a file, a socket or a folder with its content, if it is there."""
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        for entry in path.iterdir():
            remove(entry)
        path.rmdir()


def main() -> int:
    """Guard, then clean up; returns 1 when a process is left."""
    undo_signals()
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    os.chdir("/")  # keep no folder busy
    _forgiving(os.write, 1, b"ready\n")
    _close_output()
    state = GuardState()
    listen(state, int(sys.argv[1]))
    try:
        left = end_all(state.groups, state.token, grace_s=GRACE_S, kill_s=KILL_S)
    finally:
        for path in state.paths:
            remove(path)
    if left:
        _note(f"could not end processes {left}")
    return 1 if left else 0


def _apply(state: GuardState, line: bytes) -> None:
    # A guard that dies of a bad line guards nothing.
    try:
        state.apply(line)
    except (ValueError, IndexError):
        _note(f"ignored {line!r}")


def _note(text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _forgiving(os.write, 2, os.fsencode(f"{stamp} {text}\n"))


def _forgiving(action: Callable[..., object], *operands: object) -> None:
    with contextlib.suppress(OSError):
        action(*operands)


def _close_output() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
