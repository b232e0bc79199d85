"""Several workers in one process, by the command."""

import json
import os
import signal
from typing import Any

import pytest

from support.cli_env import CliEnv, Place

pytestmark = pytest.mark.cli

WORKERS = """
import os
from pbus import BaseWorker, job

class Stt(BaseWorker):
    def __init__(self, name, *, word="none"):
        super().__init__(name)
        self.word = word

    async def start(self):
        print(f"{self.name} starts")

    @job(name="say")
    async def say(self, request):
        return {"name": self.name, "word": self.word, "pid": os.getpid(),
                "env": [os.environ.get(name) for name in ("LEVEL", "PBUS_REPLICA")]}
"""
OTHER = """
from w import Stt
from pbus import BusMessage
class Mic(Stt):
    async def on_bus_message(self, message):
        await super().on_bus_message(message)
        if getattr(message, "text", "") == "fail":
            raise ValueError("a wrong word")
"""
TOPOLOGY = """
bus: {delivery: at-least-once}
workers:
  mic: {worker: 'other:Mic', process: media, depends_on: [stt], env: {LEVEL: debug}}
  stt: {worker: 'w:Stt', process: media, args: {word: hi}}
  tool: {command: [sleep, '1000'], depends_on: [stt]}
  x: {worker: 'w:Stt', process: two, replicas: 2, args: {word: 'x{replica}'}}
  y: {worker: 'w:Stt', process: two, replicas: 2}
"""


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """A running project; tests leave all workers running."""
    place = cli.place("shared", {"topology.yaml": TOPOLOGY, "w.py": WORKERS, "other.py": OTHER})
    done = place.run("up", "--wait")
    assert 0 == done.code, done
    return place


def pids(place: Place) -> dict[str, Any]:
    """The pid of each worker, as `ps` has it."""
    return {name: row["pid"] for name, row in place.rows().items()}


def say(place: Place, worker: str) -> Any:
    """What a worker says of itself."""
    return json.loads(place.tell("send", worker, "--job", "say", "--wait").out)


def test_one_process_has_several_workers(place: Place):
    """Each has its own name and args, and answers; they have one pid and one environment."""
    found = pids(place)

    assert ["mic", "stt", "tool", "x.1", "x.2", "y.1", "y.2"] == sorted(found)
    assert 4 == len(set(found.values()))
    assert (found["mic"], found["x.1"], found["x.2"]) == (found["stt"], found["y.1"], found["y.2"])
    answers = {name: say(place, name) for name in ("mic", "stt", "x.2", "y.2")}
    assert {name: found[name] for name in answers} == {
        name: answer["pid"] for name, answer in answers.items()
    }
    assert ["none", "hi", "x2", "none"] == [answer["word"] for answer in answers.values()]
    assert [["debug", None]] * 2 + [[None, "2"]] * 2 == [one["env"] for one in answers.values()]
    shown = place.tell("logs", "stt").out
    assert shown.index("stt starts") < shown.index("mic starts")
    assert "4 processes" in place.tell("validate").out


def test_commands_concern_the_whole_process(place: Place):
    """A restart, stop or start of one is one of all, and is told to be."""
    before = pids(place)
    done = place.run("restart", "stt")
    assert (0, True) == (done.code, "and mic with it, in one process" in done.err), done
    after = pids(place)
    assert after["mic"] == after["stt"] != before["stt"]
    assert before["tool"] == after["tool"]

    assert 0 == place.run("stop", "mic").code
    assert ["exited", "exited"] == [place.rows()[name]["state"] for name in ("mic", "stt")]
    done = place.run("restart", "mic", "stt")
    assert (0, 2) == (done.code, done.err.count("in one process")), done
    assert pids(place)["mic"] == pids(place)["stt"]


def test_rolling_restart_replaces_whole_processes(place: Place):
    """Of replicas one more of the whole process stands in; each worker has its answer."""
    before = pids(place)
    done = place.run("restart", "--rolling", "x", "y")
    assert 0 == done.code, done
    after = pids(place)
    assert sorted(before) == sorted(after)
    assert (after["x.1"], after["x.2"]) == (after["y.1"], after["y.2"])
    assert not {before["x.1"], before["x.2"]} & set(after.values())


def test_crash_takes_all_of_it(place: Place):
    """A process that dies is started again with all its workers; others of its group are left alone."""
    before = pids(place)
    os.kill(before["y.1"], signal.SIGKILL)
    place.until(
        lambda rows: (
            rows["x.1"]["state"] == rows["y.1"]["state"] == "ready"
            and rows["x.1"]["pid"] not in {None, before["x.1"]}
        )
    )
    after = pids(place)
    assert (after["x.1"], before["x.2"]) == (after["y.1"], after["x.2"])
    assert 1 == len({place.rows()[name]["restarts"] for name in ("x.1", "y.1")})


def test_worker_that_fails_ends_the_others(cli: CliEnv):
    """An error that ends one worker ends its process, in order; with a code that counts as failure."""
    text = (
        "workers:\n  bad: {worker: 'bad:Bad', process: p, restart: never}\n"
        "  good: {worker: 'w:Stt', process: p}\n"
    )
    bad = "from w import Stt\nclass Bad(Stt):\n    async def start(self):\n        raise ValueError('no disk')\n"
    place = cli.place("failing", {"topology.yaml": text, "w.py": WORKERS, "bad.py": bad})
    done = place.run("up", "--wait")

    assert 1 == done.code
    for name in ("bad", "good"):
        assert f"worker '{name}' failed: exited with code 1" in done.err
    assert (
        "bad has failed, and ends with all workers of its process" in place.run("logs", "good").out
    )


def test_edited_file_is_applied(cli: CliEnv):
    """A worker that is added to a process restarts it; what one gets from the file comes along."""
    text = "workers:\n  a: {worker: 'w:Stt', process: p}\n  b: {worker: 'w:Stt', process: p}\n"
    place = cli.place("edited", {"topology.yaml": text, "w.py": WORKERS})
    assert 0 == place.run("up", "--wait").code
    (place.folder / "topology.yaml").write_text(
        text.replace("process: p}\n  b", "process: p, args: {word: new}}\n  b")
        + "  c: {worker: 'w:Stt', process: p, depends_on: [a]}\n"
    )
    assert 0 == place.run("restart", "b").code
    assert "new" == say(place, "a")["word"]
    assert 1 == len(set(pids(place).values()))

    assert 0 == place.run("up").code
    place.until(lambda rows: "c" in rows and rows["c"]["state"] == "ready")
    assert "c" == say(place, "c")["name"]
    assert (1, 3) == (len(set(pids(place).values())), len(pids(place)))


def test_processes_are_split_and_joined(cli: CliEnv):
    """Workers that change their process keep their names: each waits until the former one has ended."""

    def text(*workers: str) -> str:
        return "workers:\n" + "".join(f"  {one}\n" for one in workers)

    a, b, c = (f"{name}: {{worker: 'w:Stt', process: p}}" for name in "abc")
    place = cli.place("moving", {"topology.yaml": text(a, b), "w.py": WORKERS})
    assert 0 == place.run("up", "--wait").code
    steps = [
        (text(b), ["b"], 1),  # the first leaves, and the process goes on under the name of the next
        (text(b, a, c), ["a", "b", "c"], 1),
        (text(b.replace("p}", "q}"), a, c), ["a", "b", "c"], 2),
        (text(a, b, c).replace(", process: p", ""), ["a", "b", "c"], 3),
        (text(a, c, b), ["a", "b", "c"], 1),
    ]
    for edited, names, count in steps:
        (place.folder / "topology.yaml").write_text(edited)
        done = place.run("up")
        assert 0 == done.code, (edited, done)
        place.until(
            lambda rows, n=names: (
                sorted(rows) == n and {"ready"} == {r["state"] for r in rows.values()}
            )
        )
        found = pids(place)
        assert (names, count) == (sorted(found), len(set(found.values())))
        assert {name: found[name] for name in names} == {
            name: say(place, name)["pid"] for name in names
        }
    assert all(row["restarts"] < 5 and row["error"] is None for row in place.rows().values())
