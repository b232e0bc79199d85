"""Pairs on every bus: jobs, also of a group, and messages that a handler answered."""

import asyncio
import functools

import pytest

from pbus import BaseWorker, BusDataMessage, job
from pbus.client import Client
from pbus.errors import JobFailedError, LogsElsewhereError
from pbus.messages import BusWorkerStateMessage
from support.job_helpers import Doer, hosted, one_attempt
from support.waiting import PATIENCE_S, run


class PairedCall(BusDataMessage):
    """Asks."""

    number: int


class PairedReply(BusDataMessage):
    """Answers."""

    number: int


class Replier(BaseWorker):
    """Answers calls, and calls when it is asked to."""

    async def on_bus_message(self, message):
        """Reply to the sender, and tell another of it."""
        if isinstance(message, PairedCall):
            for target in ("elsewhere", message.source):
                reply = PairedReply(source=self.name, target=target, number=message.number)
                await self.send_bus_message(reply)

    @job(name="call")
    async def call(self, request):
        """Send calls to another."""
        for number in (1, 2):
            call = PairedCall(source=self.name, target="replier", number=number)
            await self.send_bus_message(call)


def test_jobs_and_calls_are_paired(make_any_bus, any_backend):
    """Each request with its own answer, whatever passes between; a failed job has its status."""
    make = functools.partial(make_any_bus, **one_attempt(any_backend))

    async def main():
        workers = [Doer(), Doer("other"), Replier("replier"), Replier("caller")]
        async with (
            hosted(make, workers),
            Client(make()) as client,
            client.pairs(source=(client.name, "caller")) as tail,
        ):
            await client.job("caller", "call")
            await client.job_group("doer", "other", name="echo", payload={"value": 1})
            with pytest.raises(JobFailedError):
                await client.job("doer", "fail", timeout=PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                pairs = [await anext(tail) for _ in range(6)]
        calls = [pair for pair in pairs if pair.status is None]
        assert [(1, 1), (2, 2)] == [
            (pair.request.data["number"], pair.answer.data["number"]) for pair in calls
        ]
        jobs = [(pair.answer.source, pair.status) for pair in pairs if pair.status is not None]
        assert {
            ("caller", "completed"),
            ("doer", "completed"),
            ("other", "completed"),
            ("doer", "error"),
        } == set(jobs)
        assert all(pair.seconds >= 0 for pair in pairs)
        assert all(pair.request.trace_id == pair.answer.trace_id for pair in pairs)

    run(main())


def test_a_timeline_needs_the_logs(make_bus):
    """A client by a URL knows no log files; events and messages are followed all the same."""

    async def main():
        async with hosted(make_bus, [Doer()]), Client(make_bus()) as client:
            with pytest.raises(LogsElsewhereError, match="not this one"):
                client.timeline()
            async with client.timeline(logs=False, type="PairedCall") as timeline:
                await client.send("doer", "PairedCall", {"number": 3})
                async with asyncio.timeout(PATIENCE_S):
                    assert 3 == (await anext(timeline)).data["number"]

    run(main())


def test_a_state_change_is_told_once(make_bus):
    """As an event; the message that tells it is shown where its type is named."""

    async def main():
        async with Client(make_bus()) as client, Client(make_bus()) as supervisor:
            timelines = [
                client.timeline(logs=False, target="*"),
                client.timeline(logs=False, type="WorkerState"),
            ]
            for timeline in timelines:
                await timeline.__aenter__()
            for state in ("starting", "ready"):
                await supervisor.send_bus_message(
                    BusWorkerStateMessage(
                        source="supervisor-1", target=None, project="p", worker="w", state=state
                    )
                )
            async with asyncio.timeout(PATIENCE_S):
                kinds = [
                    [type(await anext(timeline)).__name__ for _ in range(count)]
                    for timeline, count in zip(timelines, (2, 4), strict=True)
                ]
        event, message = BusWorkerStateMessage.__name__, "TailMessage"
        assert [event] * 2 == kinds[0]
        assert [event, event, message, message] == sorted(kinds[1])

    run(main())
