"""Signals to a plain script with a worker, on every bus: what it has in hand is finished first."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pbus.bus import connect
from support import signalled_program
from support.job_helpers import Asker, ask, hosted
from support.signalled_program import Order
from support.waiting import PATIENCE_S, eventually, run, until

BROKERS = [
    pytest.param(("redis", "at-most-once"), marks=pytest.mark.redis),
    pytest.param(("redis", "at-least-once"), marks=pytest.mark.redis),
    pytest.param(("pgmq", "at-most-once"), marks=pytest.mark.pgmq),
    pytest.param(("pgmq", "at-least-once"), marks=pytest.mark.pgmq),
]
BOTH = [signal.SIGTERM, signal.SIGINT]


class Script:
    """The script as a process, and what it has said."""

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        self.lines: list[str] = []
        path = str(Path(signalled_program.__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, signalled_program.__file__, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, **env},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def has_said(self, text: str) -> bool:
        """Whether a line has this text."""
        return any(text in line for line in self.lines)

    def expect(self, *texts: str) -> None:
        """Wait until each was said."""
        for text in texts:
            assert eventually(lambda text=text: self.has_said(text)), self.lines

    def code(self) -> int:
        """The exit code; all that it said is in the lines then."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def orders(self) -> list[str]:
        """The orders that it has ended."""
        return [line for line in self.lines if line.startswith("ends")]


@contextlib.contextmanager
def script(folder: Path, *arguments: str, **env: str) -> Iterator[Script]:
    """The script; killed at the end if the test has not ended it."""
    made = Script(folder, *arguments, **env)
    try:
        yield made
    finally:
        made.process.kill()
        made.code()
        made.process.stdout.close()


def where(broker, request) -> tuple[str, str]:
    """A server's URL, and what is promised on it."""
    backend, delivery = broker
    fixture = "valkey" if backend == "redis" else "shared_database"
    found = request.getfixturevalue(fixture)
    return (found.url if backend == "redis" else found), delivery


@pytest.mark.parametrize("broker", BROKERS, ids="-".join)
def test_signal_drains(broker, channel, tmp_path, request):
    """Open jobs and messages in hand are finished; what comes later stays for the next, if it is kept."""
    url, delivery = where(broker, request)
    arguments = (url, channel, delivery)

    async def main(made: Script) -> None:
        asker = Asker()
        async with hosted(lambda: connect(url, channel=channel, delivery=delivery), [asker]) as (
            runner,
        ):
            await runner.registry.wait_ready("keeper", PATIENCE_S)
            held = asyncio.create_task(ask(asker, "keeper", "hold", timeout=60))
            await until(lambda: made.has_said("holds"))
            for number in range(3):
                await asker.send_bus_message(Order(source="asker", target="keeper", number=number))
            await until(lambda: made.has_said("begins 0"))
            made.process.send_signal(BOTH[delivery == "at-most-once"])
            await until(lambda: made.has_said("stops: signal SIG"))
            await asker.send_bus_message(Order(source="asker", target="keeper", number=3))
            (tmp_path / "go").touch()
            assert {"held": True} == await held
            await until(lambda: made.has_said("over"))

    with script(tmp_path, *arguments) as made:
        run(main(made))
        assert 0 == made.code()
    handled = made.orders()
    if delivery == "at-least-once" and "ends 3" not in handled:  # its end came before the last one
        with script(tmp_path, *arguments) as successor:
            successor.expect("ends 3")
            successor.process.send_signal(signal.SIGTERM)
            assert 0 == successor.code()
        handled += successor.orders()
    every = ["ends 0", "ends 1", "ends 2", "ends 3"]
    assert handled == (every if delivery == "at-least-once" else every[: max(3, len(handled))])


@pytest.mark.parametrize("number", BOTH)
def test_signal_drains_without_a_broker(number, tmp_path):
    """In one process, too, and the requester has its answer before it ends."""
    with script(tmp_path, "memory://", "", "") as made:
        made.expect("holds", "begins 0")
        made.process.send_signal(number)
        made.expect("stops: signal SIG")
        (tmp_path / "go").touch()
        assert 0 == made.code()
    assert ["ends 0", "ends 1", "ends 2"] == made.orders()
    assert made.has_said("answered {'held': True}")


def test_second_signal_ends_hard(tmp_path):
    """What does not end is cancelled at the second signal, and the program still ends by itself."""
    with script(tmp_path, "memory://", "", "") as made:
        made.expect("holds", "begins 0")
        for _ in BOTH:
            made.process.send_signal(signal.SIGTERM)
            made.expect("stops: signal SIGTERM")
        assert 0 == made.code()
    assert not made.orders()
    assert made.lines[-1] == "over"


@pytest.mark.parametrize("env", [{"PBUS_STOP_GRACE": "0.2"}, {"PBUS_STOP_DRAIN": "0"}], ids=str)
def test_grace_of_the_topology_ends_hard(env, tmp_path):
    """One signal is enough where its time is over, or where there is none."""
    with script(tmp_path, "memory://", "", "", **env) as made:
        made.expect("holds", "begins 0")
        made.process.send_signal(signal.SIGTERM)
        assert 0 == made.code()
    assert not made.orders()


def test_signal_while_it_starts(tmp_path):
    """A worker that has not started has nothing in hand: it ends at once."""
    with script(tmp_path, "memory://", "", "", NEVER_STARTS="1") as made:
        made.expect("starting")
        made.process.send_signal(signal.SIGTERM)
        assert 0 == made.code()
    assert made.lines[-1] == "over"
