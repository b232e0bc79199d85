"""`pbus down --purge`: nothing of a project is left, whether it runs or not."""

from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli_env import CliEnv, Place
from support.valkey import Valkey

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: {name}
bus: {{{bus}, delivery: at-least-once}}
workers:
  vault: {{worker: "workers:Vault"}}
"""
WORKERS = """
from pbus import BaseWorker

class Vault(BaseWorker):
    pass
"""


def place_at(cli: CliEnv, name: str, bus: str) -> Place:
    """A project with stored messages that wait."""
    text = TOPOLOGY.format(name=name, bus=bus)
    place = cli.place(name, {"topology.yaml": text, "workers.py": WORKERS})
    fill(place)
    return place


def fill(place: Place) -> None:
    """Send stored messages to a worker that is down."""
    place.up()
    assert 0 == place.tell("stop", "vault").code
    assert 0 == place.tell("send", "vault", "--text", "a secret").code


def files_of(cli: CliEnv) -> list[Path]:
    """All files that a home's projects left."""
    return [path for path in (*cli.state.rglob("*"), *cli.runtime.rglob("*")) if path.is_file()]


def see_purged(done: Any) -> None:
    """It says that all is gone."""
    assert (0, True) == (done.code, "its messages, data and logs are gone" in done.err), done.err
    assert "others use" not in done.err


def test_own_broker_goes(tmp_path: Path) -> None:
    """The embedded Valkey's file, the logs and all else of a project that is down, by its name."""
    with CliEnv() as cli:
        place = place_at(cli, "own", "backend: redis")
        assert "1 unhandled message" in place.run("down").err
        assert any(b"a secret" in path.read_bytes() for path in files_of(cli))
        see_purged(cli.start(tmp_path, ("down", "--purge", "-p", "own")).done())
        assert [] == files_of(cli)
        unknown = cli.start(tmp_path, ("down", "--purge", "-p", "own")).done()
        assert (3, True) == (unknown.code, "none has left anything" in unknown.err)


def test_shared_broker_is_left_to_others(own_valkey: Valkey) -> None:
    """Of the user's own broker go this channel's keys, and no others; while it is away nothing."""
    with CliEnv() as cli, redis.Redis.from_url(own_valkey.url, decode_responses=True) as client:
        alike = "{pbus:shared2}:leases"
        client.set(alike, "x")
        place = place_at(cli, "shared", f'url: "{own_valkey.url}"')
        assert len(client.keys()) > 1
        see_purged(place.run("down", "--purge"))
        assert ([alike], []) == (client.keys(), files_of(cli))
        strange = place.tell("down", "--purge")
        assert (3, True) == (strange.code, "not connected" in strange.err)

        fill(place)
        assert 0 == place.run("down").code
        own_valkey.kill()
        away = place.run("down", "--purge")
        assert (3, True) == (away.code, own_valkey.url in away.err)
        assert [] != files_of(cli)
        own_valkey.start()
        client.set(alike, "x")
        see_purged(place.run("down", "--purge"))
        assert ([alike], []) == (client.keys(), files_of(cli))
