"""A broker of the user's own: reached by its URL, or reported as unreachable; the password is never shown."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from pbus.bus import connect
from support.cli_env import CliEnv, Command, Done, Place, wait_for
from support.rights import documented_grants, documented_rights
from support.valkey import Valkey

pytestmark = pytest.mark.cli

PASSWORD = "geheim-0815"
TOPOLOGY = """
name: shared
bus: {url: "${BUS_URL}"}
workers:
  hello: {worker: "workers:Hello"}
"""
WORKERS = """
from pbus import BaseWorker

class Hello(BaseWorker):
    async def start(self):
        print("hello")
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    """A server that wants a password."""
    with Valkey("--requirepass", PASSWORD, tcp=True) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def waiting(cli: CliEnv) -> Iterator[list[Command]]:
    """Commands that wait for an answer; begun first, for they take their time."""
    with contextlib.closing(socket.socket()) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        silent = deaf.getsockname()[1]
        urls = {
            "silent": f"redis://:{PASSWORD}@127.0.0.1:{silent}",
            "away": f"redis://:{PASSWORD}@127.0.0.1:1",
            "mute": f"postgresql://:{PASSWORD}@127.0.0.1:{silent}/x",
            "nowhere": f"postgresql://:{PASSWORD}@127.0.0.1:1/x",
        }
        places = {name: place_at(cli, name, url) for name, url in urls.items()}
        yield [
            places["silent"].start("up"),
            places["silent"].start("ps", "-f", "topology.yaml"),
            places["away"].start("up", "-d", "--wait"),
            places["mute"].start("up"),
            places["nowhere"].start("ps", "-f", "topology.yaml"),
        ]


def place_at(cli: CliEnv, name: str, url: str) -> Place:
    """A project whose bus is there."""
    text = TOPOLOGY.replace("shared", name).replace("${BUS_URL}", url)
    return cli.place(name, {"topology.yaml": text, "workers.py": WORKERS})


def see_unreachable(done: Done) -> None:
    """Exit code 3 within 5 s (and what the command itself takes), the address without password."""
    assert 3 == done.code
    assert re.search(r"the message broker at (redis|postgresql)://:\*{3}@127\.0\.0\.1:", done.err)
    assert PASSWORD not in done.out + done.err
    assert "Traceback" not in done.err
    assert done.seconds < 5 + 10


def test_file_that_was_only_found_is_not_connected_to(cli: CliEnv, broker: Valkey):
    """In a stranger's folder no verb sends a password to where its file says; named, it says where."""
    place = place_at(cli, "strange", f"redis://:{PASSWORD}@127.0.0.1:{broker.port}")
    at = rf"redis://:\*\*\*@127\.0\.0\.1:{broker.port}"

    with redis.Redis(port=broker.port, password=PASSWORD) as client:

        def connections() -> int:
            total: int = client.info("stats")["total_connections_received"]
            return total

        before = connections()
        for verb in ("ps", "tail", "jobs", "events"):
            done = place.tell(verb)
            assert 3 == done.code
            assert re.search(rf"was never started here by you with the broker at {at}", done.err)
            assert "-f topology.yaml" in done.err
        assert before == connections()

        named = place.tell("ps", "-f", "topology.yaml")
        assert 0 == named.code
        assert re.search(rf"connecting to {at}", named.err)
        assert before < connections()


def test_file_that_was_changed_is_not_connected_to(cli: CliEnv, broker: Valkey):
    """What was started here with one broker sends no password to another that its file names now."""
    place = place_at(cli, "pulled", f"redis://:{PASSWORD}@127.0.0.1:{broker.port}")
    assert 0 == place.run("up", "-d", "--wait").code
    assert 0 == place.run("down").code
    assert 0 == place.tell("ps").code

    file = place.folder / "topology.yaml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        text = file.read_text().replace(f":{broker.port}", f":{other.getsockname()[1]}")
        for make in (file.write_text, lambda text: replace_by_link(file, text)):
            make(text)
            for words in (
                ("ps",),
                ("jobs",),
                ("down", "--purge"),
                ("-p", "pulled", "down", "--purge"),
            ):
                done = place.tell(*words)
                assert 3 == done.code
                assert "was never started here by you with the broker at" in done.err
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def replace_by_link(file: Path, text: str) -> None:
    """Put a link to a file elsewhere in its place."""
    elsewhere = file.parent.parent / "elsewhere.yaml"
    elsewhere.write_text(text)
    file.unlink()
    file.symlink_to(elsewhere)


def test_open_broker_is_warned_of(cli: CliEnv):
    """A broker with neither password nor key is open to all who reach it: validate and up say so."""
    with Valkey(tcp=True) as server:
        place = place_at(cli, "open", server.tcp_url)
        done = [place.tell("validate"), place.run("up", "-d", "--wait"), place.run("down")]
        keyed = place.folder / "topology.yaml"
        keyed.write_text(keyed.read_text().replace("bus: {", "bus: {key: 0123456789abcdef, "))
        quiet = [place.tell("validate"), place.run("up", "-d", "--wait"), place.run("down")]

    assert [0] * 6 == [one.code for one in (*done, *quiet)]
    assert [True, True, False] == ["set `bus.key`" in one.err for one in done]
    assert [False] * 3 == ["set `bus.key`" in one.err for one in quiet]


def test_wrong_password_is_told(cli: CliEnv, broker: Valkey):
    """The server's refusal is passed on, the password is not."""
    url = f"redis://:{PASSWORD}-not@127.0.0.1:{broker.port}"

    see_unreachable(place_at(cli, "refused", url).run("up"))


def test_password_is_never_shown(cli: CliEnv, broker: Valkey):
    """Neither a command's output nor a log nor a command line has it; only the record, mode 0600."""
    place = place_at(cli, "guarded", f"redis://:{PASSWORD}@127.0.0.1:{broker.port}")
    foreground = place.start("up", "--plain")
    foreground.until("hello * ready")
    tail = place.start("tail", "-n", "1", "--source", "cli-*")
    verbs = [("ps",), ("ps", "--json"), ("logs",), ("validate", "--json"),
             ("config",), ("config", "--json"), ("doctor",), ("doctor", "--json")]  # fmt: skip
    done = [*(place.tell(*words) for words in verbs), place.run("up")]
    while tail.process.poll() is None:
        done.append(place.tell("send", "hello", "--text", "x"))
    words = cli.command_lines()
    record = place.record_path()
    done += [tail.done(), foreground.end()]

    assert f"redis://:***@127.0.0.1:{broker.port}" == done[1].json["bus"]
    assert [] == [one for one in done if PASSWORD in one.out + one.err]
    assert PASSWORD not in words
    files = [path for path in cli.state.rglob("*") if path.is_file() and path != record]
    assert [] == [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_no_broker_is_told(waiting: list[Command]):
    """Where no server listens, or one that never answers, every verb reports it within 5 s."""
    for command in waiting:
        see_unreachable(command.done())


VERBS = [
    ("ps",), ("send", "hello", "--text", "x"), ("jobs",), ("restart", "hello"),
    ("stop", "hello"), ("send", "hello", "--text", "kept"), ("ps", "--json"),
    ("dlq", "ls"), ("purge", "hello"), ("start", "hello"), ("events", "--for", "100ms"),
    ("send", "hello", "--text", "x", "--key", "k"), ("stats",), ("stats", "--json"), ("doctor",),
    ("up", "-d"),
]  # fmt: skip


def test_user_with_the_documented_rights_runs_everything(cli: CliEnv):
    """A project with kept messages, and every verb, on a Redis user that may do what README says."""
    with Valkey(tcp=True) as server:
        rules = " ".join(documented_rights())
        reply = server.command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rules.split())
        assert reply.startswith(b"+OK"), reply
        place = place_at(cli, "shop", f"redis://app:secret@127.0.0.1:{server.port}")
        topology = place.folder / "topology.yaml"
        topology.write_text(
            topology.read_text().replace(
                "bus: {",
                "bus: {delivery: at-least-once, encrypt: true, key: '0123456789abcdef,fedcba9876543210', ",
            )
        )
        place.up()
        tail = place.start("tail", "-n", "1", "--source", "cli-*")
        with redis.Redis(port=server.port, decode_responses=True) as client:
            wait_for(lambda: any(one["psub"] != "0" for one in client.client_list()))
        codes = {words: place.tell(*words).code for words in VERBS}
        assert 0 == tail.done().code
        assert 0 == place.run("down").code
        with redis.Redis(port=server.port, decode_responses=True) as client:
            refused = {entry["object"] for entry in client.acl_log()}

    assert dict.fromkeys(VERBS, 0) == codes
    assert refused <= {"client|setinfo", "config|get"}  # doctor asks what it may not know


@pytest.mark.pgmq
def test_role_with_the_documented_rights_runs_everything(cli: CliEnv, database: str, postgres: Any):
    """The same on a Postgres role; an administrator ran pbus once."""
    name = urlsplit(database).path[1:]

    async def prepare() -> None:
        async with connect(database, channel="of-the-administrator"):
            pass

    asyncio.run(prepare())
    grants = [one.replace("shop_app", "hired").replace("shop", name) for one in documented_grants()]
    revoked = f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"
    for statement in ("CREATE ROLE hired LOGIN", revoked, *grants):
        postgres.execute(statement, database=name)
    place = place_at(cli, "hired", f"{database}&role=hired")
    place.up()
    tail = place.start("tail", "-n", "1", "--source", "cli-*")
    while tail.process.poll() is None:
        place.tell("send", "hello", "--text", "x")
    codes = {words: place.tell(*words).code for words in VERBS}
    log = "".join(path.read_text() for path in cli.state.rglob("hired*/**/*.log"))
    ended = place.run("down", "--purge")

    assert 0 == ended.code
    assert dict.fromkeys(VERBS, 0) == codes
    assert "BrokerReady" in log
    assert "permission denied" not in log + tail.done().err + ended.err
