"""Spans of Pipecat programs in a collector: a job to their worker is one trace with its asker."""

import sys

import pytest

from support.cli_env import CliEnv, wait_for
from support.otlp_collector import Collector

pytestmark = pytest.mark.cli

BOT = """
import asyncio
from pipecat.pipeline.job_decorator import job
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner

class Bot(BaseWorker):
    @job(name="echo")
    async def echo(self, message):
        await self.send_job_update(message.job_id, {"percent": 50})
        await self.send_job_response(message.job_id, {"got": message.payload})

async def main():
    BUS
    await runner.add_workers(Bot("anna"))
    await runner.run()

asyncio.run(main())
"""
SIDECAR = "runner = WorkerRunner()"
OWN_BUS = "from pbus.compat.pipecat import PbusBus; runner = WorkerRunner(bus=PbusBus.from_env())"


@pytest.mark.parametrize("bus", [SIDECAR, OWN_BUS], ids=["sidecar", "bus"])
def test_a_job_is_one_trace(bus: str):
    """Request, its handling in the program, update and response: each below the one that led to it."""
    topology = f"name: traced-bots\nworkers: {{anna: {{command: ['{sys.executable}', bot.py], pipecat: true}}}}\n"
    with Collector() as collector, CliEnv() as cli:
        cli.environ |= collector.environ
        place = cli.place(
            "traced-bots", {"topology.yaml": topology, "bot.py": BOT.replace("BUS", bus)}
        )
        place.up()
        assert 0 == place.run("send", "anna", "--job", "echo", "--data", "{}", "--wait").code
        request = "BusJobRequestMessage"

        def found(name: str, kind: str) -> list:
            return [
                one for one in collector.named(name) if one.attributes["pbus.message.type"] == kind
            ]

        wait_for(lambda: found("process anna", request))
        (process,) = found("process anna", request)

        def sent() -> list:
            return [
                one
                for one in collector.spans
                if one.trace_id == process.trace_id
                and one.service == "anna"
                and one.kind == "producer"
            ]

        wait_for(lambda: len(sent()) >= 2)
        (send,) = found("send anna", request)
        assert ("anna", send.trace_id, send.span_id) == (
            process.service, process.trace_id, process.parent_id,
        )  # fmt: skip
        assert {"BusJobUpdateMessage", "BusJobResponseMessage"} == {
            one.attributes["pbus.message.type"] for one in sent()
        }
        assert {process.span_id} == {one.parent_id for one in sent()}
