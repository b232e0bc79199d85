"""`configs/voice`, which `pbus init --example voice` writes: a system as people build it."""

import json
import re
import subprocess
import sys

import pytest

from support.cli_env import CliEnv, Place

pytestmark = pytest.mark.cli

CALLS = ["call-1", "call-2", "call-3", "call-4"]
LINES = ["my name is {}", "what time is it", "how is the weather", "2 + 40", "bye"]


@pytest.fixture(scope="module")
def voice(cli: CliEnv) -> Place:
    """The example, as an installed command writes it, with its scribe; no call of its own."""
    place = cli.place("voice", {})
    assert 0 == place.run("init", "--example", "voice").code
    (place.folder / ".env").write_text("VOICE_CALLS=0\n")
    place.up("--profile", "record")
    return place


def dialogues(voice: Place, calls: list[str]) -> dict[str, list[str]]:
    """The answers to the lines of calls that are held at the same time."""
    asked = {}
    for call in calls:
        lines = [line.format(call.replace("-", "")) for line in LINES]
        data = json.dumps({"call": call, "lines": lines})
        asked[call] = voice.start("send", "caller", "--job", "call", "--data", data, "--wait")
    answers = {}
    for call, command in asked.items():
        done = command.done()
        assert 0 == done.code, done.err
        *pieces, last = map(json.loads, done.out.splitlines())
        assert {"call": call, "turns": len(LINES)} == last
        answers[call] = [piece["answer"] for piece in pieces]
    return answers


def recognisers(voice: Place) -> dict[str, set[str]]:
    """The replicas that have heard each call, as the agent logs it."""
    found: dict[str, set[str]] = {}
    for line in voice.logs("agent"):
        if match := re.search(r"(call-\w+): .*, heard by (stt\.\d)", line):
            found.setdefault(match[1], set()).add(match[2])
    return found


def test_calls_are_held_at_the_same_time(voice: Place):
    """Audio to text to tools to audio: each caller is understood, remembered, and told what tools stream."""
    for call, (named, clock, weather, total, bye) in dialogues(voice, CALLS).items():
        name = call.replace("-", "")
        assert f"what else, {name}" == named
        assert re.fullmatch(rf"it is \d\d:\d\d\. what else, {name}", clock)
        assert "sunny at first, clouds after noon, rain at night." in weather
        assert f"that is 42. what else, {name}" == total
        assert f"goodbye, {name}." == bye
    heard = recognisers(voice)
    assert set(CALLS) == heard.keys()
    assert {1} == {len(replicas) for replicas in heard.values()}  # a call stays at one
    assert {"stt.1", "stt.2"} == set.union(*heard.values())
    ended = [line for line in voice.logs("scribe") if "ended after 5 turns" in line]
    assert len(CALLS) == len(ended)


def test_calls_go_on_while_a_recogniser_is_away(voice: Place):
    """Its calls go to the other one."""
    (call,) = [call for call, heard in recognisers(voice).items() if heard == {"stt.1"}][:1]
    assert 0 == voice.run("stop", "stt.1").code
    assert [call] == [*dialogues(voice, [call])]
    assert {"stt.1", "stt.2"} == recognisers(voice)[call]


def test_example_shows_what_it_says(voice: Place):
    """The features that it is an example of are in its file, as pbus understands it."""
    shown = voice.tell("validate", "--json").json["workers"]
    workers = {worker["name"]: worker for worker in shown}

    assert {"agent": "ready", "stt": "ready", "tts": "ready"} == {
        name: one["condition"] for name, one in workers["caller"]["depends_on"].items()
    }
    assert (2, 500 << 20) == (workers["stt"]["replicas"], workers["stt"]["limits"]["memory"])
    assert 30.0 == workers["agent"]["health"]["max_handler"]
    assert "jsonl" == workers["clock"]["stdio"]
    assert ["record"] == workers["scribe"]["profiles"]
    assert all(worker["watch"] for worker in shown)
    assert "always" == workers["tools"]["restart"]["policy"]


def test_recorded_call_is_replayed(voice: Place):
    """By the client that asked for it, and by a stand-in for the caller; a changed answer is told."""
    recording = voice.start("record", "-o", "call.jsonl")
    voice.until_followed(1)
    lines = ["hello, my name is ada", "how is the weather", "2 + 40", "bye"]
    data = json.dumps({"call": "call-9", "lines": lines})
    assert 0 == voice.tell("send", "caller", "--job", "call", "--data", data, "--wait").code
    done = recording.end()
    assert (0, "") == (done.code, done.out), done.err

    expect = ("--expect", "call.jsonl")
    again = voice.tell("replay", "call.jsonl", *expect)
    assert (0, "") == (again.code, again.out), again.err
    assert "sent 1 messages" in again.err
    assert 0 == voice.tell("stop", "caller").code
    spoken = voice.tell("replay", "call.jsonl", "--as", "caller", *expect)
    assert (0, "") == (spoken.code, spoken.out), spoken.err

    whole = (voice.folder / "call.jsonl").read_text()
    (voice.folder / "other.jsonl").write_text(whole.replace("goodbye, ada.", "good night, ada."))
    changed = voice.tell("replay", "call.jsonl", "--as", "caller", "--expect", "other.jsonl")
    assert 1 == changed.code
    assert ['agent -> tts Say 8: text: expected "good night, ada.", got "goodbye, ada."'] == [
        line for line in changed.out.splitlines() if line.startswith("agent -> tts")
    ]


def test_its_own_tests_pass(voice: Place):
    """They need neither processes nor a broker."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_workers.py"],
        cwd=voice.folder, capture_output=True, text=True, timeout=50,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr


def test_it_ends_in_order(voice: Place):
    """Those that others wait for end after them."""
    assert 0 == voice.run("down").code
    log = [line for worker in ("caller", "agent", "clock") for line in voice.logs(worker)]

    assert 3 == sum("exited with code 0" in line for line in log)
