"""`pbus stats`: a known load is told exactly, for people and programs."""

import pytest

from support.cli_env import Place, wait_for
from support.terminal import terminal

pytestmark = pytest.mark.cli

EDGE = [
    "source", "target", "type", "rate", "bytes_rate", "sent", "bytes", "handled", "errors", "lost",
    "undelivered", "wait_s", "handling_s",
]  # fmt: skip


def edges(place: Place, *names: str) -> dict[tuple[str, str, str], dict]:
    """The edges that `stats --json` tells."""
    done = place.run("stats", "--json", *names)
    assert 0 == done.code
    assert ["project", "edges", "jobs"] == list(done.json)
    found = done.json["edges"]
    assert [] == [one for one in found if list(one) != EDGE]
    return {(one["source"], one["target"], one["type"]): one for one in found}


def handled(place: Place) -> int:
    """Text frames that clients sent to the clerk, and that it handled."""
    key = ("cli-*", "clerk", "BusFrameMessage")
    return edges(place, "clerk").get(key, {"handled": 0})["handled"]


def test_a_known_load_is_told(sample: Place):
    """Exactly so many messages more; the times of all; within 10 s a rate."""
    before = handled(sample)
    sample.tell("send", "clerk", "--text", "load", "--count", "250")
    wait_for(lambda: handled(sample) - before == 250)
    edge = edges(sample)["cli-*", "clerk", "BusFrameMessage"]

    assert (0, 0, 0) == (edge["errors"], edge["lost"], edge["undelivered"])
    assert 0 < edge["handling_s"]["p50"] <= edge["handling_s"]["p99"]
    assert 0 <= edge["wait_s"]["p50"] <= edge["wait_s"]["p95"]


def test_jobs_are_told_by_outcome(sample: Place):
    """Of a client, too, whose jobs the worker counts."""
    assert sample.ask("hand", "wave")["to"].startswith("cli-")

    def jobs():
        found = sample.run("stats", "--json", "hand").json["jobs"]
        return [one for one in found if (one["requester"], one["name"]) == ("cli-*", "wave")]

    (job,) = wait_for(jobs)
    assert job["outcomes"]["completed"] >= 1
    assert job["latency_s"]["p50"] > 0


def test_table_and_wrong_names(sample: Place):
    """A heading and a line an edge; a name that means nothing is wrong usage."""
    wait_for(lambda: sample.run("stats").out)
    done = sample.run("stats")
    wrong = sample.run("stats", "clark")

    assert ["SOURCE", "TARGET", "TYPE"] == done.out.split()[:3]
    assert (2, True) == (wrong.code, "did you mean 'clerk'" in wrong.err)


def test_watch_goes_on(sample: Place):
    """A JSON line a second, until Ctrl-C."""
    watch = sample.start("stats", "--json", "--watch")
    wait_for(lambda: len(watch.out.splitlines()) >= 2)

    assert 130 == watch.end().code


def test_terminal_shows_the_edges_live(sample: Place):
    """The display at the edges of these workers; a wrong name is told before anything is drawn."""
    wait_for(lambda: "clerk" in sample.run("stats", "clerk").out)
    with terminal(sample, "stats", "clerk", "--watch", rows=24, columns=80) as screen:
        screen.until("4 edges")
        screen.until("clerk")
        screen.press("\x03")
        assert 130 == screen.code()
    with terminal(sample, "stats", "clark", "--watch") as screen:
        assert 2 == screen.code()
        assert "\x1b[?1049h" not in screen.written
        assert "did you mean 'clerk'" in screen.text()
