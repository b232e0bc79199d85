"""Public usage of the client, type-checked and never run."""

from typing import assert_type

import pbus.client
from pbus import JobContext, JobEvent, JobParams, JobResponse
from pbus.client import Client, ControlResult, SyncClient, TailMessage, WorkerStatus


async def main() -> None:
    """What a program does with a project."""
    async with pbus.client.connect(project="shop") as client:
        assert_type(client, Client)
        response = await client.job("indexer", "load", {"day": 5}, timeout=20)
        assert_type(response, JobResponse)
        asked = client.job("indexer", params=JobParams(name="load", retries=1))
        assert_type(asked, JobContext)
        async with asked:
            async for event in asked:
                assert_type(event, JobEvent)
        answers = await client.job_group("a", "b", name="find", cancel_on_error=False)
        assert_type(answers, dict[str, JobResponse])
        assert_type(await client.request_job("indexer", "load", key="k"), str)
        assert_type(await client.send("indexer", "Note", {"text": "x"}), list[str | None])
        assert_type(await client.send_text("indexer", "x", key="k"), list[str | None])
        rows = await client.workers(ready=True)
        assert_type(rows, list[WorkerStatus])
        if rows[0].queue is not None:
            assert_type(rows[0].queue.backlog, int)
        async for message in client.tail(source=["indexer", "a*"], category="job", key="k"):
            assert_type(message, TailMessage)
            assert_type(message.key, str | None)
        async for change in client.events():
            assert_type(change.state, str)
        assert_type(await client.control.restart("x", timeout=5), list[ControlResult])
        assert_type(await client.control.scale({"x": 2}), list[ControlResult])
        assert_type(await client.control.restart(rolling=True), list[ControlResult])
        assert_type(await client.dead_letters.requeue("key"), int)
        assert_type(await client.wait_ready("x"), list[str])
        slowest = max(one.wait_s.p99 for one in (await client.stats("b")).edges if one.wait_s)
        assert slowest > 0.0
        await client.cancel_job((await client.open_jobs()).jobs[0].job_id, reason="enough")


def script() -> None:
    """The same without a loop."""
    with pbus.client.connect_sync(url="redis://localhost", channel="c", key="k") as client:
        assert_type(client, SyncClient)
        assert_type(client.job("indexer", "load", {"day": 5}, timeout=5, key="k"), JobResponse)
        with client.open_job("indexer", "load") as asked:
            for event in asked:
                assert_type(event, JobEvent)
        assert_type(client.workers(), list[WorkerStatus])
        for message in client.tail(timeout=5, source="a", key=["k", "l*"]):
            assert_type(message, TailMessage)
        assert_type(client.control.stop("x"), list[ControlResult])
        assert_type(client.control.scale({"x": 2}, timeout=5), list[ControlResult])
        assert_type(client.dead_letters.drop(every=True), int)
