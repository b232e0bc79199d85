"""`pbus seq` in a real project: a conversation of three workers, one of which is killed in the middle."""

import json
from xml.etree import ElementTree as ET

import pytest
import redis

from support.cli_env import CliEnv, Command, Place, wait_for

pytestmark = pytest.mark.cli

TOPOLOGY = """
name: talk
bus: {delivery: at-least-once}
workers:
  begin: {worker: "w:Begin"}
  middle: {worker: "w:Middle", restart: {backoff: {initial: 10ms}}}
  tools: {worker: "w:Tools"}
"""
WORKERS = """
import os, signal
from pathlib import Path
from pbus import BaseWorker, BusDataMessage, job

class Question(BusDataMessage):
    text: str

class Answer(BusDataMessage):
    text: str

class Begin(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, Question):
            await self.send_bus_message(
                Question(source=self.name, target="middle", text=message.text)
            )
        elif isinstance(message, Answer):
            print("answer:", message.text)

class Middle(BaseWorker):
    async def on_bus_message(self, message):
        if isinstance(message, Question):
            found = await self.job("tools", "look", {"text": message.text})
            if message.text == "die" and not Path("died").exists():
                Path("died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            await self.send_bus_message(
                Answer(source=self.name, target="begin", text=found["text"])
            )

class Tools(BaseWorker):
    @job(name="look")
    async def look(self, request):
        return {"text": request.payload["text"].upper()}
"""


@pytest.fixture(scope="module")
def talk(cli: CliEnv) -> Place:
    place = cli.place("talk", {"topology.yaml": TOPOLOGY, "w.py": WORKERS})
    place.up()
    return place


def follow(talk: Place, *commands: tuple[str, ...]) -> list[Command]:
    """Start commands, one after another, each when the broker serves those before it."""
    started = []
    with talk.broker() as broker:
        for words in commands:
            before = followers(broker)
            started.append(talk.start(*words))
            wait_for(lambda before=before: followers(broker) - before)
    return started


def followers(broker: redis.Redis) -> set[str]:
    """The connections that follow all traffic."""
    return {one["id"] for one in broker.client_list() if one["psub"] != "0"}


def say(talk: Place, text: str) -> None:
    talk.tell("send", "begin", "--type", "Question", "--data", json.dumps({"text": text}))


def test_trace_with_a_kill_is_complete(talk: Place):
    """Question, job, answer of the job, the end and the start of its worker, all again, and the answer."""
    text, mermaid, svg, tail = follow(
        talk, ("seq",), ("seq", "--format", "mermaid"), ("seq", "--format", "svg"),
        ("tail", "--json", "--type", "Question", "-n", "1"),
    )  # fmt: skip
    say(talk, "die")
    say(talk, "other")
    wait_for(lambda: {"answer: DIE", "answer: OTHER"} <= set(talk.logs("begin")))
    (question,) = tail.done().objects
    done = mermaid.end()
    assert (130, "") == (done.code, done.err)

    _, *lines = done.out.splitlines()
    names = dict(line.split()[1::2] for line in lines if line.startswith("  participant"))
    by_name = {names[number]: number for number in names}
    begin, middle, tools = (by_name[name] for name in ("begin", "middle", "tools"))
    steps = [line.strip() for line in lines if "participant" not in line]
    asked, answered = f"{middle}->>{tools}: look()", f"{tools}-->>{middle}: completed"
    assert 3 == steps.count(asked) == steps.count(answered)
    assert 2 == steps.count(f"{begin}->>{middle}: Question")
    assert 2 == steps.count(f"{middle}->>{begin}: Answer")
    killed = next(at for at, step in enumerate(steps) if "SIGKILL" in step)
    assert steps[killed].startswith(f"Note over {middle}: backoff")
    assert f"Note over {middle}: ready" in steps[killed:]
    assert asked in steps[:killed]
    assert asked in steps[killed:]
    assert len(question["trace_id"]) == 32

    picture = svg.end().out
    assert {"begin", "middle", "tools"} <= {one.text for one in ET.fromstring(picture).iter()}
    shown = text.end().out
    assert {"begin", "middle", "tools"} <= set(shown.splitlines()[0].split())
    assert "backoff: was killed by SIGKILL" in shown


def test_nothing_of_it_is_told(talk: Place):
    """A trace that no message has; a time that is over at once ends well."""
    everything, none = follow(
        talk, ("seq", "--format", "mermaid"), ("seq", "--trace", "f" * 32, "--for", "60s")
    )  # fmt: skip
    talk.ask("tools", "look", {"text": "x"})
    assert 2 == everything.end().out.count(">>")
    done = none.end()
    assert (130, "") == (done.code, done.out)
    assert "nothing of it was seen" in done.err
    assert 0 == talk.tell("seq", "--for", "1ms").code
    assert 2 == talk.tell("seq", "--for", "soon").code


def test_recording_is_complete_or_says_not(talk: Place):
    """Ended by Ctrl-C or a time it is; killed it is not; conversations and jobs are found in it."""
    mcap, lines, killed = follow(
        talk, ("record", "-o", "a.mcap"), ("record", "-o", "a.jsonl"), ("record", "-o", "b.jsonl")
    )
    say(talk, "one")
    found = talk.ask("tools", "look", {"text": "x"})
    say(talk, "two")
    wait_for(lambda: {"answer: ONE", "answer: TWO"} <= set(talk.logs("begin")))
    assert found == {"text": "X"}
    wait_for(lambda: (talk.folder / "b.jsonl").read_text().count("\n") > 3)
    killed.kill()
    for command, name in ((mcap, "a.mcap"), (lines, "a.jsonl")):
        done = command.end()
        assert (0, "") == (done.code, done.out)
        assert f"{name} has" in done.err
    mermaid = ("seq", "--format", "mermaid", "--from")
    whole = talk.tell(*mermaid, "a.jsonl")
    assert (whole.out, "") == (talk.tell(*mermaid, "a.mcap").out, whole.err)
    assert 2 * 5 + 2 == whole.out.count(">>")

    recorded = [json.loads(line) for line in (talk.folder / "a.jsonl").read_text().splitlines()]
    messages = [line["message"] for line in recorded if "message" in line]
    (job,) = {
        one["job_id"] for one in messages if one.get("source", "").startswith("cli-")
        and "job_id" in one
    }  # fmt: skip
    assert 2 == talk.tell(*mermaid, "a.mcap", "--job", job).out.count(">>")
    traces = {one["traceparent"][3:35] for one in messages if one["source"] == "begin"}
    for trace in traces:
        assert 5 == talk.tell(*mermaid, "a.mcap", "--trace", trace).out.count(">>")
    broken = talk.tell("seq", "--from", "b.jsonl")
    assert (0, True) == (broken.code, "INCOMPLETE: it was broken off" in broken.err)


def test_replay_is_compared_with_a_golden_recording(talk: Place):
    """Green as recorded, by stand-ins too; red with the field after one changed answer."""
    golden = talk.folder / "a.jsonl"
    for options in ((), ("--ignore", "text")):
        done = talk.tell("replay", "a.mcap", "--speed", "0", "--expect", "a.jsonl", *options)
        assert (0, "") == (done.code, done.out), done.err
        assert "sent 3 messages" in done.err
    changed = golden.read_text().replace('"text":"ONE"', '"text":"OTHER"')
    (talk.folder / "changed.jsonl").write_text(changed)
    done = talk.tell("replay", "a.jsonl", "--speed", "0", "--expect", "changed.jsonl")
    assert 1 == done.code
    differs = 'text: expected "OTHER", got "ONE"'
    assert [
        f'tools -> middle JobResponse 1 (middle look({{"text": "one"}}) #1): response.{differs}',
        f"middle -> begin Answer 1: {differs}",
    ] == sorted(done.out.splitlines(), reverse=True)
    incomplete = talk.tell("replay", "a.jsonl", "--expect", "b.jsonl")
    assert (1, True) == (incomplete.code, "b.jsonl is INCOMPLETE" in incomplete.err)


def test_replay_stands_in_for_workers(talk: Place):
    """It answers their jobs as recorded; not for one that runs; fed alone, a worker says the same."""
    taken = talk.tell("replay", "a.jsonl", "--as", "tools")
    assert (1, True) == (taken.code, "'tools'" in taken.err)
    unknown = talk.tell("replay", "a.jsonl", "--as", "nome")
    assert (1, True) == (unknown.code, "'nome'" in unknown.err)

    talk.tell("stop", "tools")
    stood_in = ("replay", "a.jsonl", "--speed", "0", "--as", "tools", "--expect", "a.jsonl")
    done = talk.tell(*stood_in)
    assert (0, "") == (done.code, done.out), done.err
    talk.tell("stop", "begin")
    fed = talk.tell("replay", "a.jsonl", "--speed", "0", "--only", "middle", "--expect", "a.jsonl")
    assert (0, "") == (fed.code, fed.out), fed.err
    assert "4 messages of workers are as expected" in fed.err
    talk.tell("start", "begin", "tools")


def test_replay_goes_step_by_step(talk: Place):
    """Each Enter sends a message; q ends it."""
    done = talk.run("replay", "a.jsonl", "--step", stdin="\nq\n")
    assert (0, True) == (done.code, "ended after 1 messages" in done.err)
    assert 2 == done.err.count("cli-")


def test_recording_that_cannot_be_complete_ends_with_1(talk: Place):
    """Of a project that stops meanwhile; a file that is none, or that cannot be written, is told."""
    assert 1 == talk.tell("record", "-o", "a.txt").code
    assert 1 == talk.tell("record", "-o", "none/a.jsonl", "--for", "1ms").code
    assert 1 == talk.tell("seq", "--from", "w.py").code
    (command,) = follow(talk, ("record", "-o", "c.jsonl"))
    talk.tell("down")
    done = command.done()
    assert (1, True) == (done.code, "c.jsonl is INCOMPLETE: talk has stopped" in done.err)
    assert "talk has stopped" in talk.tell("seq", "--from", "c.jsonl").err
