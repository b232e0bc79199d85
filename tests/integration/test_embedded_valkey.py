"""The embedded Valkey: the real server, its options, its end, its failures."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import redis

from pbus.errors import BrokerStartError
from pbus.process.project.project import Project
from pbus.process.services import embedded_server, valkey
from pbus.process.services.guard_client import GuardClient
from pbus.process.services.valkey import EmbeddedValkey
from support.guard_fixture_program import make_project
from support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.redis


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of its own, in a folder whose name needs quoting."""
    folder = tmp_path / "a b'%"
    folder.mkdir()
    return make_project(folder, monkeypatch)


def run(project: Project, body: Callable[[EmbeddedValkey, GuardClient], Awaitable[None]]) -> None:
    """Run the body with a guard and a broker that is not started."""

    async def main() -> None:
        guard = GuardClient()
        await guard.start(project)
        valkey = EmbeddedValkey(project, guard)
        try:
            await body(valkey, guard)
        finally:
            await valkey.stop()
            await guard.stop()

    asyncio.run(main())


def test_server_answers_on_socket(project: Project) -> None:
    """It listens on a private socket only, keeps nothing on disk, leads its own group."""

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        url = await valkey.start()
        with redis.Redis.from_url(url, decode_responses=True) as client:
            wanted = ("port", "save", "appendonly", "unixsocketperm", "client-output-buffer-limit")
            config = client.config_get(*wanted)
            clients = client.info("clients")["connected_clients"]
        assert "0" == config["port"]
        assert "" == config["save"]
        assert "no" == config["appendonly"]
        assert config["client-output-buffer-limit"].endswith("pubsub 67108864 33554432 60")
        assert 0o700 == valkey.socket_path.stat().st_mode & 0o777
        assert valkey.process.pid == os.getpgid(valkey.process.pid)
        assert 1 == clients
        assert [] == psutil.Process(valkey.process.pid).net_connections("inet")
        assert len(os.fsencode(valkey.socket_path)) <= 100

    run(project, body)


def test_stop_leaves_nothing(project: Project) -> None:
    """After stop the server and its socket are gone; a second stop is no error."""

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        await valkey.start()
        process = valkey.process
        await valkey.stop()
        await valkey.stop()
        assert process.returncode is not None
        assert not valkey.socket_path.exists()
        assert valkey.process is None

    run(project, body)
    assert not project.runtime_dir.exists()


def test_killed_server_restarts(project: Project) -> None:
    """The end of the server is seen, and it can be started again at the same address."""

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        url = await valkey.start()
        first = valkey.process.pid
        os.kill(first, signal.SIGKILL)
        assert -signal.SIGKILL == await asyncio.wait_for(valkey.wait(), PATIENCE_S)
        assert url == await valkey.start()
        assert first != valkey.process.pid
        with redis.Redis.from_url(url) as client:
            assert client.ping()

    run(project, body)


def test_frozen_server_is_killed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not mind SIGTERM is killed when its time is over."""
    monkeypatch.setattr(embedded_server, "STOP_S", 0.2)

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        await valkey.start()
        process = valkey.process
        os.kill(process.pid, signal.SIGSTOP)
        await valkey.stop()
        assert -signal.SIGKILL == process.returncode

    run(project, body)


def test_refused_option_is_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that exits at once is reported with what it said, and nothing of it stays."""
    monkeypatch.setattr(valkey, "_arguments", lambda *_: ("--no-such-option", "1"))

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        with pytest.raises(BrokerStartError, match=r"exited with code 1(.|\n)*no-such-option"):
            await valkey.start()
        assert valkey.process is None

    run(project, body)


def test_silent_server_is_given_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers is ended when its time is over."""
    monkeypatch.setattr(valkey, "_arguments", _listen_elsewhere)
    monkeypatch.setattr(valkey, "START_S", 0.3)

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        with pytest.raises(BrokerStartError, match=r"no answer within 0\.3 s"):
            await asyncio.wait_for(valkey.start(), PATIENCE_S)
        assert valkey.process is None

    run(project, body)


def test_cancelled_start_ends_server(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled leaves no server behind."""
    monkeypatch.setattr(valkey, "_arguments", _listen_elsewhere)

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        starting = asyncio.create_task(valkey.start())
        await until(lambda: valkey.process is not None)
        process = valkey.process
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert process is not None
        assert -signal.SIGKILL == process.returncode

    run(project, body)


def test_deleted_data_give_disk_back(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is rewritten when it is much larger than what is stored, and not before."""
    monkeypatch.setattr(valkey, "_SYNC_EVERY_S", 0.02)
    monkeypatch.setattr(valkey, "_REWRITE_BYTES", 1_000_000)
    monkeypatch.setattr(valkey, "_REWRITE_PAUSE_S", 0.1)
    asked: list[bytes] = []
    ask = valkey._ask

    async def note(socket: Path, command: bytes) -> bytes:
        asked.append(command)
        return await ask(socket, command)

    def size(server: EmbeddedValkey) -> int:
        return sum(path.stat().st_size for path in (server.folder / "appendonlydir").iterdir())

    async def main() -> None:
        guard = GuardClient()
        await guard.start(project)
        server = EmbeddedValkey(project, guard, keeps_data=True)
        try:
            url = await server.start()
            with redis.Redis.from_url(url) as client:
                client.set("kept", "k")
                client.set("large", "x" * 20_000_000)
                await until(lambda: asked.count(b"INFO memory") > 1)
                assert b"BGREWRITEAOF" not in asked
                assert 20_000_000 < size(server)
                client.delete("large")
                await until(lambda: size(server) < 1_000_000)
                client.set("later", "l")
            await server.stop()
            url = await server.start()
            with redis.Redis.from_url(url, decode_responses=True) as client:
                assert ["k", None, "l"] == client.mget("kept", "large", "later")
        finally:
            await server.stop()
            await guard.stop()

    monkeypatch.setattr(valkey, "_ask", note)
    asyncio.run(main())


@pytest.mark.parametrize(
    "reply", [b"", b"$", b"$x\r\n", b"$-1\r\n", b"$5\r\nab", b"-LOADING\r\n", b"$3\r\nabc\r\n"]
)
def test_odd_replies_ask_for_nothing(tmp_path: Path, reply: bytes) -> None:
    """A server that breaks off, is loading or says something else is neither up nor rewritten."""
    path = tmp_path / "s"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(reply)
        writer.close()

    async def main() -> None:
        assert not await valkey._answers(path)  # there is none
        async with await asyncio.start_unix_server(answer, path):
            assert not await valkey._answers(path)
            assert not await valkey._is_mostly_dead(path, 10**12)

    asyncio.run(main())


def test_missing_binary_is_explained(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for which there is no binary is told what else it can do."""
    monkeypatch.setattr("platform.machine", lambda: "abacus")

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        with pytest.raises(BrokerStartError, match=r"-abacus; start .* bus\.url"):
            await valkey.start()

    run(project, body)


def test_old_log_is_put_aside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's log does not grow for ever, though the server holds it open."""
    monkeypatch.setattr(embedded_server, "_MAX_LOG_BYTES", 10)

    async def body(valkey: EmbeddedValkey, _: GuardClient) -> None:
        await valkey.start()
        await valkey.stop()
        await valkey.start()

    run(project, body)
    path = project.service_log_path("valkey")
    assert [1, 1] == [log.read_text().count("Ready to accept") for log in (path, Path(f"{path}.1"))]


def _listen_elsewhere(socket: Path, _: Path) -> tuple[str, ...]:
    return ("--port", "0", "--unixsocket", f"{socket}.x", "--save", "")
