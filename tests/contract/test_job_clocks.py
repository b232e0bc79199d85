"""A job has the time that its requester gave it, whatever the clocks of other processes say."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pbus.bus import connect
from pbus.messages import BusJobRequestMessage, BusJobResponseMessage, JobStatus
from support import worker_program
from support.job_helpers import Asker, ask, hosted
from support.moved_clock import moved_clock
from support.waiting import PATIENCE_S, run, until

MOVED_S = {"ahead": 120.0, "behind": -120.0}
BROKERS = [
    pytest.param(("redis", "at-most-once"), marks=pytest.mark.redis),
    pytest.param(("redis", "at-least-once"), marks=pytest.mark.redis),
    pytest.param(("pgmq", "at-least-once"), marks=pytest.mark.pgmq),
]


@pytest.fixture(params=BROKERS)
def broker(request):
    """A server's URL, and what is promised on it."""
    backend, delivery = request.param
    if backend == "redis":
        return request.getfixturevalue("valkey").url, delivery
    return request.getfixturevalue("shared_database"), delivery


@contextlib.contextmanager
def far_doers(broker, channel, folder):
    """Two workers in processes whose clocks are wrong: "ahead" and "behind"."""
    url, delivery = broker
    path = str(Path(worker_program.__file__).parents[1])
    children = []
    try:
        for name, seconds in MOVED_S.items():
            site = folder / name
            site.mkdir()
            moved = moved_clock(seconds, site)
            moved["PYTHONPATH"] += os.pathsep + path
            command = [sys.executable, worker_program.__file__, url, channel, delivery, name]
            children.append(subprocess.Popen(command, env={**os.environ, **moved}))
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(PATIENCE_S)


class Hearing(Asker):
    """Keeps answers to jobs that it asked for by hand."""

    def __init__(self):
        super().__init__()
        self.answers = {}

    async def on_bus_message(self, message):
        if isinstance(message, BusJobResponseMessage):
            self.answers[message.job_id] = message

    async def ask_too_late(self, name):
        """The answer to a job whose time was up a minute ago."""
        now = time.time()
        request = BusJobRequestMessage(
            source=self.name, target=name, job_id=f"late at {name}", job_name="echo",
            time=now, deadline=now - 60.0,
        )  # fmt: skip
        await self.send_bus_message(request)
        await until(lambda: request.job_id in self.answers)
        return self.answers[request.job_id]


def test_wrong_clocks_leave_jobs_their_time(broker, channel, tmp_path):
    """Two minutes off, ahead or behind: jobs are done, know their time, and late ones are not."""
    url, delivery = broker

    async def main():
        asker = Hearing()
        async with hosted(lambda: connect(url, channel=channel, delivery=delivery), [asker]):
            for name in MOVED_S:
                await asker.registry.wait_ready(name, PATIENCE_S)
                answer = await ask(asker, name, "left", timeout=PATIENCE_S)
                assert 0 < answer["left_s"] <= PATIENCE_S + 1
                if delivery == "at-least-once":
                    late = await asker.ask_too_late(name)
                    assert (JobStatus.CANCELLED, "its time was up before it came") == (
                        late.status,
                        late.response["reason"],
                    )

    with far_doers(broker, channel, tmp_path):
        run(main())
