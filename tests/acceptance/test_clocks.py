"""Hosts whose clocks differ: only the broker's clock counts, and the difference is named."""

from collections.abc import Iterator

import pytest

from support.cli_env import CliEnv
from support.moved_clock import moved_clock
from support.valkey import Valkey

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: clocks
bus: {{url: "{url}", channel: "{channel}"}}
workers:
  right: {{worker: "pbus:BaseWorker"}}
  moved: {{worker: "pbus:BaseWorker"}}
"""


@pytest.fixture
def other_home() -> Iterator[CliEnv]:
    """Another machine, as far as files go."""
    with CliEnv() as cli:
        yield cli


@pytest.mark.parametrize("ahead_s", [-120])
def test_clock_of_another_host(
    cli: CliEnv, other_home: CliEnv, valkey: Valkey, channel: str, ahead_s: int
):
    """A host whose clock is wrong comes up, and each shows the other's workers as they are."""
    files = {"topology.yaml": TOPOLOGY.format(url=valkey.tcp_url, channel=channel)}
    here, there = cli.place(f"here{ahead_s}", files), other_home.place("there", files)
    other_home.environ.update(moved_clock(ahead_s, other_home.folder))
    here.start("up", "-d", "--only", "right")
    there.up("--only", "moved")
    rows = here.until(lambda rows: rows.keys() == {"right", "moved"} and rows["right"]["ready"])
    done, from_there = here.tell("ps"), there.run("ps", "--json")

    seen = [rows, {row["name"]: row for row in from_there.json["workers"]}]
    assert [["ready"] * 2] * 2 == [[row["state"] for row in one.values()] for one in seen]
    assert all(0 <= row["uptime_s"] < 60 for one in seen for row in one.values())
    direction = "ahead of" if ahead_s > 0 else "behind"
    assert f"s {direction} this one's: pbus goes by the broker's" in done.err
    here.run("down")
    there.run("down")
