"""`pbus seq` in a real project: a conversation of three workers, one of which is killed in the middle."""

import json
from xml.etree import ElementTree as ET

import pytest

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
    started = [talk.start(*words) for words in commands]
    talk.until_followed(len(started))
    return started


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
        talk, ("seq", "--format", "mermaid"), ("seq", "--trace", "f" * 32)
    )  # fmt: skip
    talk.ask("tools", "look", {"text": "x"})
    assert 2 == everything.end().out.count(">>")
    done = none.end()
    assert (130, "") == (done.code, done.out)
    assert "nothing of it was seen" in done.err
    assert 0 == talk.tell("seq", "--for", "1ms").code
    assert 2 == talk.tell("seq", "--for", "soon").code
