"""What strangers wrote, in every place where a verb shows it: a terminal never acts on it."""

import json

import pytest

from support.cli_env import CliEnv, Place, wait_for
from support.terminal import terminal

pytestmark = pytest.mark.cli

WILD = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[31m\x9b5m\u202egnp\u2066\x00\x7f\x08\r"
CONTROLS = [*map(chr, (*range(9), *range(11, 27), 28, 29, 30, 31, *range(127, 160)))]
CONTROLS += ["\x1b]", "\x1b[2J", "\x1b[31m\x9b", "\u202e", "\u2066"]
TOPOLOGY = """
name: wild
bus: {delivery: at-least-once, max_attempts: 1}
workers:
  beast: {worker: "workers:Beast", env: {WILD: %s}}
  broken: {worker: "workers:Broken", restart: never}
"""
WORKERS = """
import sys
from pbus import PENDING, BaseWorker, BusDataMessage, job

WILD = %r

class Roar(BusDataMessage):
    text: str

class Beast(BaseWorker):
    async def start(self):
        print("out", WILD)
        print("err", WILD, file=sys.stderr)

    async def on_bus_message(self, message):
        if isinstance(message, Roar):
            raise ValueError(f"cannot hear {WILD}")

    @job(name="fail")
    async def fail(self, request):
        await self.send_job_update(request.job_id, {"step": WILD})
        raise ValueError(f"no {WILD}")

    @job(name="answer")
    async def answer(self, request):
        await self.send_job_stream_start(request.job_id, {"piece": WILD})
        await self.send_job_stream_data(request.job_id, {"piece": WILD})
        await self.send_job_stream_end(request.job_id, {"text": WILD})

    @job(name="open")
    async def open(self, request):
        await self.send_job_update(request.job_id, {"step": WILD})
        return PENDING

class Broken(BaseWorker):
    async def start(self):
        print("last words", WILD, file=sys.stderr, flush=True)
        raise SystemExit(f"broken {WILD}")
"""


@pytest.fixture(scope="module")
def wild(cli: CliEnv) -> Place:
    """A project that has much to say."""
    files = {"topology.yaml": TOPOLOGY % json.dumps("x"), "workers.py": WORKERS % WILD}
    place = cli.place("wild", files)
    assert place.run("up", "-d").code == 0
    place.until(
        lambda rows: rows["beast"]["state"] == "ready" and rows["broken"]["state"] == "failed"
    )
    place.run("send", "beast", "--type", "Roar", "--data", json.dumps({"text": WILD}))
    wait_for(lambda: json.loads(place.tell("dlq", "ls", "--json").out)["dead_letters"])
    return place


def see_fit(text: str) -> None:
    """Nothing in it makes a terminal do anything but show, start lines and use colours."""
    assert [] == [control for control in CONTROLS if control in text]


def test_every_verb_is_clean(wild: Place):
    """Each verb, as text and as JSON: what is printed is fit for a terminal, and JSON still says all."""
    opened = wild.start("send", "beast", "--job", "open", "--wait", "--timeout", "60")
    wait_for(lambda: wild.tell("jobs", "--json").json["jobs"])
    key = wild.tell("dlq", "ls", "--json").json["dead_letters"][0]["key"]
    tail = wild.start("tail", "-n", "3", "--type", "Bus*", "--type", "Roar")
    tail_json = wild.start("tail", "-n", "3", "--json", "--type", "Bus*", "--type", "Roar")
    wild.until_followed(2)
    verbs = [
        ("ps",), ("ps", "--json"), ("jobs",), ("jobs", "--json"), ("ls",), ("ls", "--json"),
        ("logs",), ("logs", "broken"), ("dlq", "ls"), ("dlq", "ls", "--json"), ("dlq", "show", key),
        ("events", "--for", "300ms"), ("send", "beast", "--job", "fail", "--wait"),
        ("send", "beast", "--job", "answer", "--wait"), ("send", f"q{WILD[1:]}", "--text", "x"),
        ("send", "beast", "--job", f"x{WILD[1:8]}", "--wait"), ("restart", "broken", "--timeout", "3"),
        ("cancel", "nothing", "--reason", "x"), ("purge", "beast"), ("up", "-d"),
        ("send", "beast", "--text", WILD.replace("\0", "")), ("validate",), ("validate", "--json"),
        ("config",), ("config", "--json"), ("stats",), ("stats", "--json"), ("doctor",), ("doctor", "--json"),
    ]  # fmt: skip
    for words in verbs:
        tell = wild.run if words[0] == "up" else wild.tell
        done = tell(*(word.replace("\0", "") for word in words))
        see_fit(done.out)
        see_fit(done.err)
        if "--json" in words and words[0] != "events":
            json.loads(done.out)
    opened.end()
    for followed in (tail.end(), tail_json.end()):
        see_fit(followed.out)
    shown = wild.tell("dlq", "show", key).json
    assert WILD == shown["message"]["text"]
    assert "\x1b]52;c;ZXZpbA==\x07\x1b[2J" in wild.run("logs", "--raw").out


@pytest.mark.parametrize("options", [(), ("--plain",)])
def test_display_is_clean(wild: Place, options: tuple[str, ...]):
    """The live display of up and the lines of up --plain, on a real terminal, to the end table."""
    wild.run("down")
    with terminal(wild, "up", *options) as shown:
        shown.until("last words")
        shown.until("err")
        shown.press("\x03")
        shown.code()

    # Colours, moves and the alternate screen are the display's own.
    for control in ("\x1b]", "\x07", "\x9b", "\u202e", "\u2066", "\x00", "\x7f", "\x1b[31m\x9b"):
        assert control not in shown.written
    assert "\\x1b[1m" not in shown.written  # nor is the display's own shown as text
