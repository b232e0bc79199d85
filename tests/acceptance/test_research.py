"""The research example: several sources at once, one slow, one failing, seen as they work."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Done, Place, wait_for
from support.terminal import terminal
from support.waiting import eventually

pytestmark = pytest.mark.cli

RESEARCH = Path(__file__).parents[2] / "configs" / "research"


@pytest.fixture(scope="module")
def research(cli: CliEnv) -> Iterator[Place]:
    """A copy of it, running."""
    place = cli.place("research", RESEARCH)
    place.up()
    yield place
    place.run("down")


def ask(place: Place, **payload: object) -> Done:
    """What the desk says about a topic."""
    data = json.dumps({"topic": "priority queue", **payload})
    return place.tell("send", "desk", "--job", "research", "--data", data, "--wait")


def cancels(place: Place) -> int:
    """How often the attic was told to stop while it was looking."""
    return sum(line.startswith("cancelled") for line in place.logs("attic"))


def test_findings_stream_then_summary(research: Place):
    """Places of several sources come as they are found, then how each source ended."""
    done = ask(research)
    *places, summary = done.objects

    assert 0 == done.code, done.err
    assert {"docs", "code"} == {place["source"] for place in places}
    assert all({"file", "line", "text", "source"} == set(place) for place in places)
    assert len(places) == summary["found"]
    assert {
        "docs": "completed",
        "code": "completed",
        "attic": "completed",
        "archive": "error",
    } == {name: source["status"] for name, source in summary["sources"].items()}
    assert "RESEARCH_ARCHIVE" in summary["sources"]["archive"]["error"]
    updates = [line for line in done.err.splitlines() if line.startswith("update: ")]
    assert '"percent":100}' in updates[-1]


def test_strict_failure_cancels_all(research: Place):
    """The first failure ends the job at once, and the slow source is told to stop."""
    before = cancels(research)

    def is_told_to_stop() -> bool:
        done = ask(research, strict=True)
        assert 1 == done.code
        assert "there is no archive" in done.err
        # Where the archive fails before the attic has begun, the attic has nothing to say.
        return eventually(lambda: cancels(research) > before, 2.0)

    wait_for(is_told_to_stop)
    nothing = {"project": "research", "jobs": [], "silent": []}
    wait_for(lambda: research.tell("jobs", "--json").json == nothing)


def test_question_is_needed(research: Place):
    """A job without a topic says what it wants."""
    done = research.tell("send", "desk", "--job", "research", "--wait")

    assert 1 == done.code
    assert "say what about" in done.err


def test_terminal_shows_a_bar(research: Place):
    """On a terminal progress is a bar, findings stand above it, the response comes last."""
    data = json.dumps({"topic": "priority queue"})
    arguments = ("send", "desk", "--job", "research", "--data", data, "--wait")
    with terminal(research, *arguments) as screen:
        screen.until("research at desk")
        screen.until("%")
        screen.until('"archive"')
        assert 0 == screen.code()
        text = screen.text()

    assert "update:" not in text
    assert '"source":"docs"' in text
    assert text.rindex("research at desk") < text.rindex('"sources"')
