"""The socket on which a process says that it is ready, as systemd's sd_notify(3) has it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

VARIABLE = "NOTIFY_SOCKET"
_MESSAGE_BYTES = 4096
_AT_ONCE = 64  # messages that are read before others on the loop go on
_SHOWN = 200  # characters of a status


class NotifySocket:
    """Listens for one process.

    Args:
        path: Where the socket is made; short, as all paths of sockets.
        on_ready: Called at READY=1.
        on_status: Called with the text of STATUS=.

    Raises:
        OSError: The socket cannot be made.
    """

    def __init__(
        self,
        path: Path,
        on_ready: Callable[[], None],
        on_status: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._on_ready = on_ready
        self._on_status = on_status
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.settimeout(0)
            self._socket.bind(os.fspath(path))
            path.chmod(0o600)
            asyncio.get_running_loop().add_reader(self._socket, self._read)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Stop listening and remove the socket. Idempotent."""
        if self._socket.fileno() != -1:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                message = self._socket.recv(_MESSAGE_BYTES)
            except OSError:  # nothing more, for now
                return
            self._apply(message.decode(errors="replace"))

    def _apply(self, message: str) -> None:
        for line in message.split("\n"):  # no other character ends a line
            name, _, value = line.partition("=")
            if name == "STATUS":
                self._on_status(value[:_SHOWN])
            elif (name, value) == ("READY", "1"):
                self._on_ready()
