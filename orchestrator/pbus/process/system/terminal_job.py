"""A program in the foreground: it has this process' streams, terminal and signals."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Final

from pbus.process.system.launch_plan import Launch
from pbus.process.system.spawn import inherited_spec

_PASSED_ON: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_SIGNAL_CODE: Final = 128  # as shells have it


async def run_in_foreground(launch: Launch) -> int:
    """Run a program to its end.

    It is a process group of its own, and where stdin is this process' terminal the one in the
    foreground: Ctrl-C and Ctrl-Z are its own. Signals to this process are passed on.

    Returns:
        Its exit code; 128 and the signal's number where a signal ended it.

    Raises:
        OSError: It cannot be started.
    """
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        job = _Job(_own_terminal())
        handlers = {number: lambda n=number: job.send(n) for number in _PASSED_ON}
        for number, handler in {**handlers, signal.SIGCHLD: job.look}.items():
            loop.add_signal_handler(number, handler)  # they run when the program has started
            stack.callback(loop.remove_signal_handler, number)
        job.start(launch)
        stack.callback(job.close)
        return await job.ended


def _start(launch: Launch) -> "subprocess.Popen[bytes]":
    with inherited_spec(launch) as (env, descriptors):
        return subprocess.Popen(  # noqa: S603 - given by the user, or by the topology
            launch.argv, env=env, cwd=launch.cwd, process_group=0, pass_fds=descriptors
        )


class _Job:
    """A running program and the terminal that it has."""

    def __init__(self, terminal: int | None) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._terminal = terminal
        self._process: subprocess.Popen[bytes]

    def start(self, launch: Launch) -> None:
        """Start it and give it the terminal; it may have been stopped because it had not."""
        self._process = _start(launch)
        self._give_terminal(self._process.pid)
        if self._terminal is not None:
            self.send(signal.SIGCONT)
        self.look()

    def close(self) -> None:
        """Take the terminal back; a program that still runs is killed."""
        if not self.ended.done() or self.ended.cancelled():
            self.send(signal.SIGKILL)
            self._process.wait()
        self._give_terminal(os.getpgrp())

    def send(self, number: signal.Signals) -> None:
        """Signal its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def look(self) -> None:
        """Note that it has stopped or ended."""
        if self.ended.done():
            return
        pid, status = os.waitpid(self._process.pid, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            self._stop_too()
            return
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # it was reaped here
        self.ended.set_result(code if code >= 0 else _SIGNAL_CODE - code)

    def _stop_too(self) -> None:
        """Stop as it did, so that the shell takes the terminal; go on with it when continued."""
        if self._terminal is None:
            return  # another process stopped it, and may continue it
        self._give_terminal(os.getpgrp())
        os.kill(os.getpid(), signal.SIGTSTP)  # goes on here when continued
        if os.tcgetpgrp(self._terminal) == os.getpgrp():
            self._give_terminal(self._process.pid)
        self.send(signal.SIGCONT)

    def _give_terminal(self, group: int) -> None:
        if self._terminal is None:
            return
        with _without_stopping(), contextlib.suppress(OSError):  # the terminal is gone
            os.tcsetpgrp(self._terminal, group)


@contextlib.contextmanager
def _without_stopping() -> Iterator[None]:
    """A process in the background may take the terminal only while it blocks SIGTTOU."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _own_terminal() -> int | None:
    """The terminal on stdin, if this process is in its foreground."""
    try:
        return 0 if os.tcgetpgrp(0) == os.getpgrp() else None
    except OSError:
        return None
