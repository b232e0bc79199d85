"""A project whose workers have names of any text: each verb finds them."""

import json

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: odd
workers:
  "a:b": {worker: 'w:Named'}
  Acme Bot: {worker: 'w:Named', replicas: 2, depends_on: {"a:b": ready}}
  9f86d081-884c-4d65-9a2f-eaa0c55ad015: {worker: 'w:Named'}
  "Zoë 100%": {worker: 'w:Named'}
  "漢字 漢字 漢字 漢字 漢字 漢字 漢字 漢字 漢字 漢字": {worker: 'w:Named'}
"""
WORKERS = """
from pbus import BaseWorker, job

class Named(BaseWorker):
    async def on_activated(self, args):
        print("I am", self.name)

    @job(name="who")
    async def who(self, request):
        return {"name": self.name}
"""
LONG = " ".join(["漢字"] * 10)
SINGLE = ["a:b", "9f86d081-884c-4d65-9a2f-eaa0c55ad015", "Zoë 100%", LONG]
NAMES = [*SINGLE, "Acme Bot.1", "Acme Bot.2"]


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A project that runs."""
    place = cli.place("odd", {"topology.yaml": TOPOLOGY, "w.py": WORKERS})
    place.up()
    return place


def test_they_are_shown_and_reached(place: Place):
    """In `ps` and by jobs, a group by what its replicas share."""
    rows = place.rows()
    assert set(NAMES) == rows.keys()
    assert all(row["ready"] for row in rows.values())
    for name in SINGLE:
        assert {"name": name} == place.ask(name, "who")
    assert place.ask("Acme Bot", "who")["name"] in {"Acme Bot.1", "Acme Bot.2"}


@pytest.mark.parametrize("name", NAMES)
def test_their_logs_are_apart(place: Place, name: str):
    """Each in a file of its own, found by the name, and once among all."""
    wait_for(lambda: f"I am {name}" in place.tell("logs", name).out)
    lines = [line for line in place.tell("logs").out.splitlines() if f"I am {name}" in line]
    assert 1 == len(lines)
    assert lines[0].startswith(name[:7])
    files = [path.name for path in place.cli.state.glob("pbus/odd-*/logs/workers/*")]
    assert len(NAMES) == len(files)
    assert all(file.isascii() and "/" not in file and len(file) <= 255 for file in files)


def test_tail_filters_by_them(place: Place):
    """Whole names and patterns of them."""
    tail = place.start(
        "tail", "--json", "--target", "Acme*", "--target", "a:b", "--category", "job"
    )
    place.until_followed(1)
    for name in ("Zoë 100%", "a:b", "Acme Bot.2"):
        place.ask(name, "who")
    wait_for(lambda: tail.out.count("\n") == 2)
    targets = [json.loads(line)["target"] for line in tail.end().out.splitlines()]
    assert ["a:b", "Acme Bot.2"] == targets


def test_they_are_stopped_started_and_meant(place: Place):
    """One by one; a wrong name is told from the nearest right one."""
    done = place.run("restart", "Acme Bot.1", "Zoë 100%")
    assert done.code == 0, done.err
    rows = place.until(lambda rows: all(rows.get(name, {}).get("ready") for name in NAMES))
    assert [1, 0, 1] == [
        rows[name]["restarts"] for name in ("Acme Bot.1", "Acme Bot.2", "Zoë 100%")
    ]
    done = place.tell("stop", "Acme Bod.1")
    assert done.code != 0
    assert "Acme Bot.1" in done.err
