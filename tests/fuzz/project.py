"""The project that is fuzzed, and what must hold of it during and after that."""

import json
import re
import time
from pathlib import Path

import psutil

from fuzz.mutation import BAIT
from support.cli_env import CliEnv, Command, Place, Rows, wait_for

TOPOLOGY = """
name: fuzzed
bus: {{backend: {backend}, delivery: {delivery}}}
workers:
  clerk: {{worker: 'workers:Clerk'}}
  post: {{worker: 'workers:Clerk', replicas: 2}}
"""
WORKERS = """
from pbus import BaseWorker, BusDataMessage, job

class Note(BusDataMessage):
    text: str
    number: int = 0

class Clerk(BaseWorker):
    @job(name="double")
    async def double(self, request):
        await self.send_job_update(request.job_id, {"half": True})
        return {"number": 2 * request.payload["number"]}
"""
BROKERS = {
    "pgmq": ("pgmq", "at-least-once"),
    "redis-stored": ("redis", "at-least-once"),
    "redis": ("redis", "at-most-once"),
}
# What payloads may leave behind in a process: streams of invented senders (10,000, some 5 MB), queues
# and the payload at hand (each at most max_message_bytes, 4 MiB, and its copies), and the allocator's gaps.
GROWTH_BYTES = 64 * 1024 * 1024
_VERBS = (("ps", "--json"), ("jobs", "--json"), ("ps",), ("jobs",), ("stats", "--json"), ("stats",))
_STORED_VERBS = (("dlq", "ls", "--json"), ("dlq", "ls"))
_FAULTS = re.compile(r"a bug in pbus|Traceback|Task exception|never retrieved")
_LIMIT_S = 40.0


class Fuzzed:
    """A running project.

    Args:
        cli: Where.
        broker: One of BROKERS.
    """

    def __init__(self, cli: CliEnv, broker: str) -> None:
        backend, delivery = BROKERS[broker]
        files = {
            "topology.yaml": TOPOLOGY.format(backend=backend, delivery=delivery),
            "workers.py": WORKERS,
            f"{BAIT}.py": "open(__file__ + '.caught', 'w').close()\nclass Bait: ...\n",
        }
        self.place: Place = cli.place("fuzzed", files)
        self.place.up()
        self.is_stored = delivery == "at-least-once"
        self._before = self.place.rows()
        self._processes = [psutil.Process(row["pid"]) for row in self._before.values()]
        self._processes.append(self.place.supervisor())
        self._followers = [self.place.start(verb, "--json") for verb in ("tail", "events")]
        self.sizes = self._sizes()

    def talk(self) -> None:
        """Have real messages of all kinds pass: jobs with updates, notes, for one, for all, urgent."""
        assert {"number": 8} == self.place.ask("clerk", "double", {"number": 4})
        assert {"number": 6} == self.place.ask("post", "double", {"number": 3})
        for target in ("clerk", "post"):
            for size in (1, 9000):  # which are sealed by different algorithms
                data = json.dumps({"text": "x" * size})
                note = ("send", target, "--type", "Note", "--data", data, "--key", f"k{size}")
                assert 0 == self.place.tell(*note).code
        activation = (
            "send",
            "post.2",
            "--type",
            "BusActivateWorkerMessage",
            "--data",
            '{"args": {}}',
        )
        assert 0 == self.place.tell(*activation).code

    def check(self) -> None:
        """Everything answers and says so, by the same processes, which hold no more memory."""
        for target in ("clerk", "post.1", "post.2", "post"):
            self._until_answered(target)
        self.place.until(self._is_as_before, _LIMIT_S)
        for words in (*_VERBS, *(_STORED_VERBS if self.is_stored else ())):
            done = self.place.tell(*words)
            assert 0 == done.code, f"{words}: {done.code} {done.err}"
            assert not _FAULTS.search(done.err), done.err
        self._see_followers()
        self._see_logs()
        assert [] == list(self.place.folder.glob("**/*caught*"))
        sizes = self._sizes()
        grown = [new - old for new, old in zip(sizes, self.sizes, strict=True)]
        assert max(grown) < GROWTH_BYTES, f"processes grew by {grown} bytes"

    def last_words(self) -> str:
        """The ends of all logs."""
        paths = sorted(self.place.cli.state.glob("pbus/fuzzed-*/**/*.log"))
        ends = (path.read_text(errors="replace").splitlines()[-12:] for path in paths)
        return "\n".join(line[:600] for end in ends for line in (*end, ""))

    def grown(self) -> int:
        """By how many bytes the process grew that grew most."""
        return max(new - old for new, old in zip(self._sizes(), self.sizes, strict=True))

    def _until_answered(self, target: str) -> None:
        data = json.dumps({"number": 21})
        words = ("send", target, "--job", "double", "--data", data, "--wait", "--timeout", "10")
        seen = []

        def answer() -> bool:
            seen[:] = [self.place.tell(*words)]
            return seen[0].code == 0 and seen[0].json == {"number": 42}

        try:
            wait_for(answer, _LIMIT_S)
        except AssertionError:
            raise AssertionError(f"{target} does not answer: {seen[0].err}") from None

    def _is_as_before(self, rows: Rows) -> bool:
        keys = ("pid", "state", "ready", "restarts")
        return all(
            name in rows and all(row[key] == rows[name][key] for key in keys)
            for name, row in self._before.items()
        )

    def _see_followers(self) -> None:
        """What follows still follows, prints JSON only, and no raw control characters."""
        for follower in self._followers:
            assert follower.process.poll() is None, (follower.process.args, follower.err)
            assert not _FAULTS.search(follower.err), follower.err
        tail: Command = self._followers[0]
        had = len(tail.out)
        wait_for(lambda: self.place.ask("clerk", "double", {"number": 1}) and len(tail.out) > had)
        for line in tail.out[-200_000:].splitlines()[1:-1]:
            json.loads(line)

    def _see_logs(self) -> None:
        for path in self.place.cli.state.glob("pbus/fuzzed-*/**/*.log"):
            found = _FAULTS.search(text := path.read_text(errors="replace"))
            if found:
                shown = text[max(0, found.start() - 500) : found.end() + 3000]
                raise AssertionError(f"{path.name}: {shown}")

    def _sizes(self) -> list[int]:
        return [process.memory_info().rss for process in self._processes]


def pace(is_behind, limit_s: float = 30.0, look_s: float = 0.002) -> None:
    """Wait until the readers have caught up; what they do not read in time the broker would cut off."""
    give_up_at = time.monotonic() + limit_s
    while is_behind() and time.monotonic() < give_up_at:
        time.sleep(look_s)


def folder() -> Path:
    """Of this package."""
    return Path(__file__).parent
