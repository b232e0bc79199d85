"""`pbus tail --since`: messages of the past, while a project runs, after it, and after a kill."""

import json
import signal
from typing import Any

from support.cli_env import CliEnv, Done, Place, wait_for

TOPOLOGY = """
name: post
workers:
  ear: {worker: 'workers:Ear'}
"""
WORKERS = """
import os
from pbus import BaseWorker

class Ear(BaseWorker):
    async def on_bus_message(self, message):
        await super().on_bus_message(message)
        if getattr(getattr(message, "frame", None), "text", "") == "die":
            os._exit(9)
"""


def heads(done: Done) -> list[dict[str, Any]]:
    """The messages of `tail --json`."""
    return [json.loads(line) for line in done.out.splitlines()]


def test_traffic_outlives_the_run(cli: CliEnv) -> None:
    """Two runs, the second one's supervisor is killed."""
    place = cli.place("post", {"topology.yaml": TOPOLOGY, "workers.py": WORKERS})
    _keeps_nothing(place)

    place.up()
    secret = "a text that is not kept"
    assert 0 == place.run("send", "ear", "--text", secret).code
    past = ("tail", "--since", "1h", "--type", "TextFrame")
    wait_for(lambda: place.tell(*past).out)
    (sent,) = heads(place.tell(*past, "--json"))
    assert ("BusFrameMessage", "ear", "data") == (sent["type"], sent["target"], sent["category"])
    assert sent["source"].startswith("cli-")
    assert "data" not in sent
    _tell_with_others(place)

    stopped = place.tell("tail", "--type", "TextFrame")
    assert (0, 1, "post is not running: these are of its runs\n") == (
        stopped.code, len(stopped.out.splitlines()), stopped.err,
    )  # fmt: skip

    place.up()
    assert 0 == place.run("send", "ear", "--text", "two").code
    place.run("send", "ear", "--text", "die")  # the receiver may be gone when it is counted
    wait_for(lambda: place.tell("postmortem", "ear").code == 0)
    capsule = place.tell("postmortem", "ear", "--json").json
    wait_for(lambda: len(heads(place.tell(*past, "--json"))) == 3)
    ids = [one["id"] for one in heads(place.tell(*past, "--json"))]
    received = [one["id"] for one in capsule["traffic"]["received"] if one["type"] == sent["type"]]
    assert (9, ids[1:]) == (capsule["code"], received)
    assert "last messages to it" in place.tell("postmortem", "ear").out
    fates = [one for one in capsule["fates"] if one["type"] == "BusFrameMessage"]
    assert ids[2] in {
        one["id"] for one in fates if one["fate"] in {"unknown", "interrupted", "lost"}
    }
    _kill_supervisor(place)
    assert "run 2 crashed: its supervisor was killed" in place.tell("postmortem").err
    assert "crashed" not in place.tell("postmortem", "--run", "1").err

    found = place.tell(*past)
    lines = found.out.splitlines()
    assert 4 == len(lines)
    assert lines[1].startswith("--- run 2 began ")
    for words, expected in (
        (("--run", "1"), ids[:1]), (("--run", "2"), ids[1:]), (("-n", "1"), ids[2:]),
        (("--until", "2026-01-01"), []), (("--match", "target == 'nobody'"), []),
    ):  # fmt: skip
        chosen = place.tell("tail", "--since", "1h", "--type", "TextFrame", "--json", *words)
        assert (0, expected) == (chosen.code, [one["id"] for one in heads(chosen)]), words
    assert 2 == place.tell("tail", "--run", "7").code

    _draw(place)
    _damage(place, past, secret)
    _next_start_tells_of_the_crash(place)


def _keeps_nothing(place: Place) -> None:
    nothing = place.tell("tail", "--since", "1m")
    assert (1, "") == (nothing.code, nothing.out)
    assert "no messages of post are kept" in nothing.err
    assert 3 == place.tell("tail").code
    assert 1 == place.tell("tail", "--pairs", "--since", "1m").code


def _tell_with_others(place: Place) -> None:
    """After its end: pairs, and messages among log lines and state changes, on one clock."""
    assert 0 != place.run("send", "ear", "--job", "unknown", "--wait").code
    wait_for(lambda: place.tell("tail", "--since", "1h", "--pairs", "--json").out)
    assert 0 == place.run("down").code
    (pair,) = heads(place.tell("tail", "--pairs", "--json"))
    assert ("error", "BusJobRequestMessage") == (pair["status"], pair["request"]["type"])
    assert pair["answer"]["source"] == "ear"
    assert pair["seconds"] >= 0
    lines = heads(place.tell("tail", "--with", "logs,events", "--json"))
    assert {"message", "log", "event"} == {one["kind"] for one in lines}
    steps = [
        one.get("state") or one["type"]
        for one in lines
        if one["kind"] == "event" or one.get("type") == "BusFrameMessage"
    ]
    assert ["starting", "ready", "BusFrameMessage"] == [
        step for step in steps if step in {"starting", "ready", "BusFrameMessage"}
    ]
    text = place.tell("tail", "--with", "events", "--pairs", "--since", "1h").out.splitlines()
    assert any(line.startswith("event ") and "ready" in line for line in text)
    assert 1 == sum(line.startswith("msg ") for line in text)


def _draw(place: Place) -> None:
    diagram = place.tell("seq", "--last", "1h", "--format", "mermaid")
    assert (0, 3) == (diagram.code, diagram.out.count("TextFrame"))
    assert "backoff" in diagram.out
    _, sent, _ = heads(place.tell("tail", "--since", "1h", "--type", "TextFrame", "--json"))
    one = place.tell("seq", "--trace", sent["trace_id"], "--format", "mermaid")
    assert (0, 1) == (one.code, one.out.count("TextFrame"))
    none = place.tell("seq", "--job", "unknown")
    assert (0, "") == (none.code, none.out)


def _kill_supervisor(place: Place) -> None:
    """Once the worker is ready again, and that is kept."""
    wait_for(lambda: 2 == place.tell("events", "--run", "2", "--json").out.count('"state":"ready"'))
    place.supervisor().send_signal(signal.SIGKILL)
    wait_for(lambda: not place.cli.processes())


def _next_start_tells_of_the_crash(place: Place) -> None:
    """A capsule of the worker that ran when its supervisor got SIGKILL."""
    place.up()
    capsule = place.tell("postmortem", "ear", "--run", "2", "--json").json
    assert ("was killed with its supervisor", 2, 2) == (
        capsule["reason"], capsule["run"], capsule["start"],
    )  # fmt: skip
    assert "ready" in capsule["sequel"]["detail"]
    assert "" == place.tell("postmortem").err


def _damage(place: Place, past: tuple[str, ...], secret: str) -> None:
    path = next(place.cli.state.glob("pbus/post-*/logs/traffic.log"))
    assert secret not in path.read_text()
    path.write_bytes(b"\xff foreign\n" + path.read_bytes())
    damaged = place.tell(*past, "--json")
    assert 3 == len(heads(damaged))
    assert "damaged lines of the history were left out: 1" in damaged.err


def test_traffic_is_not_kept_where_it_is_off(cli: CliEnv) -> None:
    """A project of the same workers that says so: neither history nor messages in capsules."""
    text = TOPOLOGY.replace("post", "quiet") + "history: {traffic: false}\n"
    twin = cli.place("quiet", {"topology.yaml": text, "workers.py": WORKERS})
    twin.up()
    assert 1 == twin.tell("seq", "--last", "20s").code
    twin.run("send", "ear", "--text", "die")
    wait_for(lambda: twin.tell("postmortem", "ear").code == 0)
    assert twin.tell("postmortem", "ear", "--json").json["traffic"] is None
    assert 1 == twin.tell("tail", "--since", "1h").code
    assert 0 == twin.run("down").code
