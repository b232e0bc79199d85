"""Probes on real servers, programs and sockets."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from pbus.process.probes.checks import Surroundings, check
from pbus.process.probes.notify import NotifySocket
from pbus.process.system import groups
from pbus.topology.policy.policies import ExecProbe, HttpProbe, TcpProbe
from support.waiting import PATIENCE_S, eventually, run

SHORT_S = 0.2  # only where nothing ever answers


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """A worker's folder and environment."""
    return Surroundings({"PATH": os.environ["PATH"], "GREETING": "hello"}, tmp_path)


def answer(*replies: bytes):
    """A server that answers so, and the port it listens on."""

    async def serve(reader, writer):
        await reader.readline()
        for reply in replies:
            writer.write(reply)
        writer.close()

    return asyncio.start_server(serve, "127.0.0.1", 0)


def port_of(server: asyncio.Server) -> int:
    """Where it listens."""
    return server.sockets[0].getsockname()[1]


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 204\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "/health: status 404"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 \xff\xff\r\n", "the answer is not HTTP"),
        (b"", "the answer is not HTTP"),
        (b"x" * 100_000, "the answer is not HTTP"),
    ],
)
def test_http_status_counts(around: Surroundings, reply: bytes, expected: str):
    """200 to 399 is good; all else says what came."""

    async def look() -> str:
        async with await answer(reply) as server:
            probe = HttpProbe(f"http://127.0.0.1:{port_of(server)}/health?deep=1")
            return await check(probe, around, PATIENCE_S)

    reason = run(look())
    assert (expected in reason) if expected else reason == ""


def test_http_that_never_answers_is_bounded(around: Surroundings):
    """A server that accepts and is silent costs the time limit, not more."""

    async def look() -> str:
        async def be_silent(reader, writer):
            await reader.read()  # until the other side gives up
            writer.close()

        async with await asyncio.start_server(be_silent, "127.0.0.1", 0) as server:
            return await check(HttpProbe(f"http://127.0.0.1:{port_of(server)}/"), around, SHORT_S)

    assert f"no answer within {SHORT_S:g} s" in run(look())


def test_tcp(around: Surroundings):
    """An open port is good, a closed one says so."""

    async def look() -> tuple[str, str]:
        async with await answer() as server:
            is_open = await check(TcpProbe("127.0.0.1", port_of(server)), around, PATIENCE_S)
        return is_open, await check(TcpProbe("127.0.0.1", free_port()), around, PATIENCE_S)

    good, bad = run(look())
    assert good == ""
    assert bad.startswith("tcp 127.0.0.1:")


def test_exec_has_the_workers_surroundings(around: Surroundings):
    """A program's code counts; its last line is the reason."""
    script = (
        "import os, sys; print(os.environ['GREETING'], os.getcwd()); sys.exit(int(sys.argv[1]))"
    )

    async def look(code: str) -> str:
        return await check(ExecProbe((sys.executable, "-c", script, code)), around, PATIENCE_S)

    assert run(look("0")) == ""
    assert run(look("3")).endswith(f"exit code 3: hello {around.cwd}")


def test_exec_that_cannot_be_started_says_why(around: Surroundings):
    """No such program is a failed check like any other."""
    reason = run(check(ExecProbe(("no-such-program-here",)), around, PATIENCE_S))
    assert "No such file or directory" in reason


def test_exec_leaves_nothing_behind(around: Surroundings, tmp_path: Path):
    """What the program started ends with the check, and so does one that takes too long."""
    script = (
        "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '1000']);"
        " open('pids', 'w').write(f'{os.getpid()} {child.pid}'); time.sleep(float(sys.argv[1]))"
    )

    async def look(seconds: str, limit_s: float) -> str:
        return await check(ExecProbe((sys.executable, "-c", script, seconds)), around, limit_s)

    def group() -> int:
        return int((tmp_path / "pids").read_text().split()[0])

    assert run(look("0", PATIENCE_S)) == ""
    assert eventually(lambda: groups.is_empty(group()))
    assert "no answer within" in run(look("1000", 2.0))
    assert eventually(lambda: groups.is_empty(group()))


def test_notify_socket(tmp_path: Path):
    """READY=1 counts once it comes; foreign text does not."""
    heard: list[str] = []
    path = tmp_path / "n"

    async def listen() -> None:
        notify = NotifySocket(path, lambda: heard.append("ready"), heard.append)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            for text in (b"\xff\x00", b"READY=0", b"STATUS=loading\nMAINPID=7", b"READY=1\n"):
                sender.sendto(text, str(path))
            async with asyncio.timeout(PATIENCE_S):
                while "ready" not in heard:
                    await asyncio.sleep(0)
        notify.close()
        notify.close()

    run(listen())
    assert heard == ["loading", "ready"]
    assert not path.exists()
