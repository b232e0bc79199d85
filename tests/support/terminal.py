"""`pbus` on a terminal of its own: what it shows, and the keys a person presses."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping

from support.cli_env import PATIENCE_S, PBUS, Place, wait_for

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-_])")
# The child makes the terminal its own, then becomes pbus: no code runs between fork and exec.
# The launcher of the tests may ignore SIGHUP (`nohup`); a person at a terminal does not.
_LOGIN = (
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    " os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
)


class Terminal:
    """A terminal with one command in it."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.written = ""
        self._master = master

    def press(self, keys: str) -> None:
        """Type; control characters become signals."""
        os.write(self._master, keys.encode())

    def hang_up(self) -> None:
        """Close it, as a window is closed."""
        os.close(self._master)
        self._master = -1

    def resize(self, rows: int, columns: int) -> None:
        """Change its size, as a window does."""
        _set_size(self._master, rows, columns)

    @property
    def is_open(self) -> bool:
        """Whether it was not hung up."""
        return self._master >= 0

    @property
    def echoes(self) -> bool:
        """Whether it shows what is typed."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def until(self, text: str) -> None:
        """Wait until this is shown."""
        wait_for(lambda: text in self.text())

    def text(self) -> str:
        """All that was written so far, without colours and movements."""
        with contextlib.suppress(OSError):  # the other side is closed
            while select.select([self._master], [], [], 0)[0]:
                data = os.read(self._master, 65536)
                if not data:
                    break
                self.written += data.decode(errors="replace")
        return _ESCAPES.sub("", self.written)

    def code(self, limit_s: float = PATIENCE_S) -> int:
        """Wait for the end of the command, reading on."""
        wait_for(lambda: (self.text(), self.process.poll() is not None)[1], limit_s)
        self.text()
        return int(self.process.returncode)


def _set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextlib.contextmanager
def terminal(
    place: Place,
    *arguments: str,
    rows: int = 40,
    columns: int = 120,
    through: tuple[str, ...] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Run `pbus` on a terminal.

    Args:
        place: Where.
        arguments: Of `pbus`.
        rows: Of the terminal.
        columns: Likewise.
        through: Words before the command, the first with its path: a shell, say.
        environ: Differs from the home's.
    """
    master, slave = pty.openpty()
    _set_size(slave, rows, columns)
    process = subprocess.Popen(
        [sys.executable, "-c", _LOGIN, str(slave), *through, PBUS, *arguments],
        cwd=place.folder,
        env=place.cli.environ | {"TERM": "xterm-256color"} | dict(environ or {}),
        pass_fds=(slave,),
    )
    os.close(slave)
    made = Terminal(master, process)
    try:
        yield made
    finally:
        process.kill()
        process.wait()
        if made.is_open:
            made.hang_up()
