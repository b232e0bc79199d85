"""Rounds of random commands, edits and kills under load; after each nothing is lost or left."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from pbus.bus.connect import make_bus
from pbus.settings import BusSettings
from support.cli_env import CliEnv, Rows, living
from support.job_load import load
from support.valkey import Valkey
from support.waiting import eventually, run

_READY_S = 40.0
_GONE_S = 40.0
_MOST_REPLICAS = 4
_WORKERS = """
import asyncio, os, random
from pbus import BaseWorker, job

class Clerk(BaseWorker):
    def __init__(self, name, mark=0):
        super().__init__(name)
        self.mark = mark

    @job(name="echo")
    async def echo(self, request):
        await asyncio.sleep(random.random() / 50)
        return {"n": request.payload["n"], "by": self.name, "mark": self.mark}
"""
_RESTART = "restart: {policy: always, backoff: {initial: 50ms, max: 200ms}, max: 1000}"


class Wish(msgspec.Struct):
    """What the file of a project says.

    Attributes:
        replicas: Of the clerk.
        mark: An argument of the clerk.
        extras: Programs beside it, by name; each with the seconds that it sleeps.
    """

    replicas: int = 2
    mark: int = 0
    extras: dict[str, int] = msgspec.field(default_factory=lambda: {"base": 600})

    def names(self) -> set[str]:
        """The processes that are to run."""
        return {*self.extras, *(f"clerk.{number + 1}" for number in range(self.replicas))}


class Round:
    """One round.

    Args:
        home: The home of its project.
        name: Of the project.
        chance: Decides everything.
        url: Of a broker; None for one of its own.
    """

    def __init__(self, cli: CliEnv, name: str, chance: random.Random, url: str | None) -> None:
        self.done: list[str] = []  # for the report of a failure
        self._home = cli
        self._chance = chance
        self._url = url
        self._wish = Wish()
        self._place = cli.place(name, {"workers.py": _WORKERS})

    def run(self, steps: int) -> None:
        """Bring it up, do that many things to it under load, and end it."""
        self._write()
        self._place.up()  # by a process of its own, which is no parent of the supervisor for long
        self.done.append("up")
        with load(self._place, "clerk"):
            for _ in range(steps):
                self._chance.choice([
                    self._scale,
                    self._roll,
                    self._edit,
                    self._edit,
                    self._break,
                    self._kill,
                ])()
            self._settle()
        self._end()

    # Steps

    def _scale(self) -> None:
        self._while_killing("scale", f"clerk={self._chance.randint(1, _MOST_REPLICAS)}")

    def _roll(self) -> None:
        self._while_killing("restart", "--rolling", "clerk")

    def _edit(self) -> None:
        wish, chance = self._wish, self._chance
        wish.replicas = chance.randint(1, _MOST_REPLICAS)
        wish.mark += chance.randint(0, 1)
        names = chance.sample(["base", "left", "right"], chance.randint(1, 3))
        wish.extras = {name: 600 + chance.randint(0, 1) for name in names}
        self._write()
        self._while_killing("up", "-d")

    def _break(self) -> None:
        """Apply a file with mistakes: nothing happens."""
        before = self._place.rows().keys()
        (self._place.folder / "topology.yaml").write_text("workers: {clerk: {replicas: -1}}")
        self._tell(2, "up", "-d")
        self._write()
        after = self._place.rows().keys()
        assert before == after, f"{before} became {after}"

    def _kill(self) -> None:
        """Kill one or two processes at once, or stop one for a moment."""
        pids = list(self._pids().items())
        for name, pid in self._chance.sample(pids, min(len(pids), self._chance.randint(1, 2))):
            self._signal(name, pid)

    def _while_killing(self, *words: str) -> None:
        """Run a command; in every other case a process is killed meanwhile."""
        pids = list(self._pids().items())
        if not pids or self._chance.random() < 0.5:
            self._tell(0, *words)
            return
        name, pid = self._chance.choice(pids)
        timer = threading.Timer(self._chance.random(), self._signal, (name, pid))
        timer.start()
        try:
            code = self._tell(None, *words)
        finally:
            timer.join()
        assert code in {0, 1}, f"exit code {code}"  # 1: what was killed was not ready

    def _settle(self) -> None:
        """Apply the file once more: then all is as it says."""
        assert eventually(lambda: self._tell(None, "up", "-d") == 0, _READY_S, every_s=0.2)
        seen: Rows = {}

        def is_as_wished() -> bool:
            seen.clear()
            seen.update(self._place.rows())
            is_ready = all(row["state"] == "ready" for row in seen.values())
            return is_ready and seen.keys() == self._wish.names()

        assert eventually(is_as_wished, _READY_S, every_s=0.1), f"{self._wish}: {seen}"
        assert 0 == self._tell(None, "up", "--dry-run")
        answer = self._place.ask("clerk", "echo", {"n": 1})
        assert self._wish.mark == answer["mark"]

    # The end

    def _end(self) -> None:
        supervisor = self._place.supervisor()
        processes = self._home.processes()
        state_dir = self._place.record_path().parent
        settings = msgspec.convert(self._place.record()["bus"], BusSettings)
        how = self._chance.choice(["down", "down", "down", "SIGTERM", "SIGKILL"])
        self.done.append(how)
        if how == "down":
            self._tell(0, "down")
        else:
            supervisor.send_signal(getattr(signal, how))
        assert eventually(lambda: not living(processes), _GONE_S), f"left: {living(processes)}"
        assert eventually(lambda: not self._home.processes(), _GONE_S)
        assert eventually(lambda: not self._home.sockets(), _GONE_S)
        assert eventually(lambda: not self._home.records(), _GONE_S)
        assert [] == list(state_dir.glob("up-*"))
        if self._url is None:
            self._tell(3, "ps")
        else:
            left = eventually(lambda: run(_left_in(settings)) == ([], {}), _GONE_S, every_s=0.5)
            assert left, run(_left_in(settings))

    # Parts

    def _write(self) -> None:
        bus = "" if self._url is None else f", url: '{self._url}'"
        wish = self._wish
        lines = [
            f"bus: {{delivery: at-least-once{bus}}}",
            "workers:",
            f"  clerk: {{worker: 'workers:Clerk', replicas: {wish.replicas}, args: {{mark: {wish.mark}}},"
            f" depends_on: {{base: {{condition: ready, required: false}}}}, {_RESTART}}}"
            if "base" in wish.extras
            else f"  clerk: {{worker: 'workers:Clerk', replicas: {wish.replicas},"
            f" args: {{mark: {wish.mark}}}, {_RESTART}}}",
            *(
                f"  {name}: {{command: [sleep, '{seconds}'], {_RESTART}}}"
                for name, seconds in wish.extras.items()
            ),
        ]
        (self._place.folder / "topology.yaml").write_text("\n".join(lines) + "\n")

    def _tell(self, expected: int | None, *words: str) -> int:
        done = self._place.tell(*words)
        self.done.append(f"{' '.join(words)} → {done.code}")
        assert expected in {None, done.code}, f"{words}: {done.code}\n{done.out}{done.err}"
        return done.code

    def _pids(self) -> dict[str, int]:
        rows: dict[str, dict[str, Any]] = self._place.rows()
        return {name: row["pid"] for name, row in rows.items() if row["pid"]}

    def _signal(self, name: str, pid: int) -> None:
        self.done.append(f"kill {name}")
        own = {one.pid for one in self._place.supervisor().children()}
        if pid in own:  # it may have ended, and another one may have its number
            os.kill(pid, signal.SIGKILL)


async def _left_in(settings: BusSettings) -> tuple[list[str], dict[str, bytes]]:
    """The leases and records that a project left in its broker."""
    async with make_bus(settings) as bus:
        return [one.name for one in await bus.leases.leases()], dict(await bus.leases.records())


def run_rounds(seed: int, rounds: int, tell: Callable[[str], None] = print, steps: int = 4) -> None:
    """Run rounds; every other one with a broker that goes on.

    Args:
        seed: Of all chance; a round fails again by the same seed and number.
        rounds: How many.
        tell: Called with a line about each.
        steps: Of a round.
    """
    with CliEnv() as cli, Valkey() as server:
        for number in range(rounds):
            chance = random.Random(f"{seed} {number}")
            url = server.url if chance.random() < 0.5 else None
            began = time.monotonic()
            one = Round(cli, f"round-{number}", chance, url)
            try:
                one.run(steps)
            except BaseException:
                tell(f"SEED={seed}, round {number} failed after: {'; '.join(one.done)}")
                raise
            tell(f"round {number}: {time.monotonic() - began:.1f} s: {'; '.join(one.done)}")
