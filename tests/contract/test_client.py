"""A client on every bus: it asks, sends, follows and cancels without being a worker."""

import asyncio

import pytest

from pbus.client import Client
from pbus.errors import (
    ClientClosedError,
    JobCancelledError,
    JobFailedError,
    JobNotCancelledError,
    JobNotFoundError,
    JobTimeoutError,
    JobWorkerLostError,
    WorkerNotFoundError,
)
from support.job_helpers import Doer, hosted
from support.waiting import PATIENCE_S, run, until


async def labelled(client, labels):
    """The open jobs, once the client that asked for them has told their labels."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await client.open_jobs(PATIENCE_S)).jobs
            if labels == {entry.label for entry in found}:
                return found


def test_client_asks_like_a_worker(make_any_bus):
    """Responses, updates, pieces and errors are those that a worker would get."""

    async def main():
        doers = [Doer(), Doer("other")]
        async with hosted(make_any_bus, doers), Client(make_any_bus()) as client:
            assert {"result": 7} == await client.job("doer", "echo", {"value": 7})
            async with client.job("doer", "steps", {"count": 3}) as asked:
                steps = [event.data["number"] async for event in asked]
            assert ([0, 1, 2], {"count": 3}) == (steps, asked.response)
            async with client.job("doer", "stream", {"count": 2}) as asked:
                events = [event.type async for event in asked]
            assert ["stream_start", "stream_data", "stream_data", "stream_end"] == events
            assert {"total": 2} == asked.response
            with pytest.raises(JobTimeoutError):
                await client.job("doer", "wait", timeout=0.05)
            answers = await client.job_group("doer", "other", name="echo", payload={"value": 1})
            assert {"doer", "other"} == {answer.worker for answer in answers.values()}
            assert client.unreached == {}

    run(main())


def test_error_of_a_handler_is_told(make_bus):
    """With its class and its traceback."""

    async def main():
        async with hosted(make_bus, [Doer()]), Client(make_bus()) as client:
            with pytest.raises(JobFailedError, match="no such book") as caught:
                await client.job("doer", "fail", timeout=PATIENCE_S)
            assert "LookupError" == caught.value.response["type"]

    run(main())


def test_many_tasks_share_a_client(make_any_bus):
    """Each gets the response to its own job."""

    async def main():
        async with hosted(make_any_bus, [Doer()]), Client(make_any_bus()) as client:
            jobs = [client.job("doer", "echo", {"value": number}) for number in range(50)]
            answers = await asyncio.gather(*jobs)
            assert list(range(50)) == [answer["result"] for answer in answers]

    run(main())


def test_slow_reader_misses_nothing(make_bus):
    """The worker waits for who reads: more pieces than may be on their way unread come, all of them."""

    async def main():
        async with hosted(make_bus, [Doer()]), Client(make_bus()) as client:
            async with client.job("doer", "stream", {"count": 3_000}) as asked:
                seen = []
                async for event in asked:
                    seen.append(event.data.get("number"))
                    if len(seen) % 1_000 == 0:
                        await asyncio.sleep(0.01)  # others come in between
            assert [None, *range(3_000), None] == seen
            assert 0 == asked.missed_events

    run(main())


def test_cancelled_task_cancels_its_job(make_any_bus):
    """So does leaving the block by an error, and closing the client."""

    async def main():
        doer = Doer()
        async with hosted(make_any_bus, [doer]):
            async with Client(make_any_bus()) as client:
                waiting = asyncio.ensure_future(client.job("doer", "wait"))
                await doer.has_begun(1)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await until(lambda: doer.ended == ["cancelled"])
                with pytest.raises(ZeroDivisionError):
                    async with client.job("doer", "wait"):
                        await doer.has_begun(2)
                        raise ZeroDivisionError
                await until(lambda: doer.ended == ["cancelled"] * 2)
                waiting = asyncio.ensure_future(client.job("doer", "wait"))
                await doer.has_begun(3)
            with pytest.raises(JobCancelledError, match="client was closed"):
                await waiting
            await until(lambda: doer.ended == ["cancelled"] * 3)
            with pytest.raises(ClientClosedError):
                client.job("doer", "echo")

    run(main())


def test_requested_job_outlives_its_client(make_any_bus):
    """It is not waited for, so nothing cancels it."""

    async def main():
        doer = Doer()
        async with hosted(make_any_bus, [doer]):
            async with Client(make_any_bus()) as client:
                job_id = await client.request_job("doer", "wait")
                await doer.has_begun()
            assert [job_id] == doer.begun
            doer.gate.set()
            await until(lambda: doer.ended == ["done"])

    run(main())


def test_open_jobs_are_listed_and_cancelled(make_any_bus):
    """By any other client, where the requester lets it."""

    async def main():
        doer = Doer()
        async with hosted(make_any_bus, [doer]), Client(make_any_bus()) as client:
            free = asyncio.ensure_future(client.job("doer", "wait", label="nightly"))
            await doer.has_begun(1)
            bound = asyncio.ensure_future(client.job("doer", "wait", cancellable=False))
            await doer.has_begun(2)
            async with Client(make_any_bus()) as other:
                found = await labelled(other, {"nightly", None})
                assert {client.name} == {entry.requester for entry in found}
                ids = {entry.label: entry.job_id for entry in found}
                await other.cancel_job(ids["nightly"], reason="enough")
                with pytest.raises(JobNotCancelledError, match="not cancellable"):
                    await other.cancel_job(ids[None])
                with pytest.raises(JobNotFoundError):
                    await other.cancel_job("j-none")
            with pytest.raises(JobCancelledError, match="enough"):
                await free
            doer.gate.set()
            assert {"by": "doer"} == await bound

    run(main())


def test_lost_worker_ends_the_job(make_forgetting_bus):
    """A client learns of a worker's end as workers do, long before the deadline."""

    async def main():
        doer = Doer()
        async with (
            hosted(make_forgetting_bus, [doer]) as (runner,),
            Client(make_forgetting_bus()) as client,
        ):
            waiting = asyncio.ensure_future(client.job("doer", "wait", timeout=600))
            await doer.has_begun()
            await runner.cancel("gone")
            with pytest.raises((JobWorkerLostError, JobCancelledError)):
                await waiting

    run(main())


def test_messages_are_sent_and_seen(make_any_bus):
    """By the name of their type; a tail sees them, and whether a worker was there to take them."""

    async def main():
        async with hosted(make_any_bus, [Doer()]), Client(make_any_bus()) as client:
            async with client.tail(source=client.name, category="data") as tail:
                assert ["doer"] == await client.send_text("doer", "hello")
                assert ["doer"] == await client.send("doer", "Note", {"number": 4})
                seen = [await anext(tail), await anext(tail)]
            assert [("doer", "BusFrameMessage"), ("doer", "Note")] == [
                (one.target, one.type) for one in seen
            ]
            assert {"number": 4} == seen[1].data
            assert all(one.is_reached for one in seen)

    run(main())


def test_absent_worker_is_an_error(make_any_bus):
    """With the name that was perhaps meant, and within the time that the client was given."""

    async def main():
        async with (
            hosted(make_any_bus, [Doer()]),
            Client(make_any_bus(), find_timeout=0.1) as client,
        ):
            for asking in (client.job("doe", "echo"), client.send_text("doe", "x")):
                with pytest.raises(WorkerNotFoundError, match="'doer'") as caught:
                    await asking
                assert "doe" == caught.value.name

    run(main())
