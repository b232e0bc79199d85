"""The examples in configs/ that need Pipecat, as users copy them."""

import os
import signal
import sys
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

CONFIGS = Path(__file__).parents[2] / "configs"


def copied(cli: CliEnv, name: str) -> Place:
    """An example that runs."""
    place = cli.place(name, CONFIGS / name)
    file = place.folder / "topology.yaml"
    file.write_text(file.read_text().replace("[python,", f"[{sys.executable},"))
    place.up()
    return place


def test_handoff(cli: CliEnv):
    """Who is active answers; a word has it hand over, there and back; a new process goes on."""
    place = copied(cli, "pipecat-handoff")

    def say(text):
        return place.ask("main", "say", {"text": text})["text"]

    assert "greeter heard: Hello" == say("Hello")
    assert "greeter heard: I need help" == say("I need help")
    wait_for(lambda: any("support takes over" in line for line in place.logs("support")))
    assert "support heard: It is broken" == say("It is broken")
    assert "support heard: Thanks, bye" == say("Thanks, bye")
    wait_for(lambda: sum("greeter takes over" in line for line in place.logs("greeter")) == 2)
    assert "greeter heard: Hello again" == say("Hello again")
    assert "greeter heard: More help" == say("More help")
    wait_for(lambda: place.rows()["support"]["active"])
    os.kill(place.rows()["support"]["pid"], signal.SIGKILL)
    place.until(lambda rows: rows["support"]["restarts"] == 1 and rows["greeter"]["active"])
    assert "greeter heard: And again" == say("And again")
    assert [True, True, False] == [
        place.rows()[n]["active"] for n in ("main", "greeter", "support")
    ]


def test_mixed(cli: CliEnv):
    """A tool of a model is a job of a pbus worker's, one of several; its updates arrive, too."""
    place = copied(cli, "pipecat-mixed")

    answers = [place.ask("assistant", "ask", {"text": word})["text"] for word in ("bus", "tram")]

    assert [
        'The dictionary says: "carries messages between workers"',
        'The dictionary says: "is not in this dictionary"',
    ] == answers
    told = [line for line in place.logs("assistant") if line.startswith("the dictionary")]
    assert ["the dictionary: update {'percent': 50}"] * 2 == told
    place.until(lambda rows: rows["assistant"]["sent"] == 4)  # two jobs, and two answers
    places = ("dictionary.1", "dictionary.2")
    place.until(lambda rows: [1, 1] == [rows[name]["received"] for name in places])  # a job each
