"""What pbus touches of Pipecat is as it was; where one of these fails, `theirs.py` needs a look."""

import ast
import dataclasses
import inspect
import os
from pathlib import Path

import pytest
from pipecat.bus import AsyncQueueBus, BusMessage, WorkerBus
from pipecat.bus.bus import BusSubscription
from pipecat.registry import WorkerRegistry
from pipecat.utils.startup import run_setup_hook
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner

import pbus
from pbus.compat.pipecat import sidecar, theirs
from pbus.process.system.launch_plan import PIPECAT_VARIABLE
from support.pipecat_bots import Bot
from support.waiting import run

FOLDER = Path(pbus.__file__).parent / "compat" / "pipecat"
CALLS = [
    (WorkerBus.subscribe, ["self", "subscriber"]),
    (WorkerBus.send, ["self", "message"]),
    (WorkerBus.publish, ["self", "message"]),
    (WorkerBus.on_message_received, ["self", "message"]),
    (WorkerBus.start, ["self"]),
    (WorkerBus.stop, ["self"]),
    (WorkerRegistry.register, ["self", "worker_data"]),
    (WorkerRunner.get_worker, ["self", "name"]),
    (WorkerRunner.end, ["self", "reason"]),
    (WorkerRunner.cancel, ["self", "reason"]),
    (WorkerRunner.add_event_handler, ["self", "event_name", "handler"]),
    (BaseWorker.wait, ["self"]),
    (BaseWorker.accepts_bus_message, ["self", "message"]),
]


@pytest.mark.parametrize(("call", "names"), CALLS, ids=lambda one: getattr(one, "__qualname__", ""))
def test_calls_take_what_they_took(call, names):
    """By these names, in this order."""
    assert names == list(inspect.signature(call).parameters)


def test_fields_of_all_messages():
    """Those that pbus writes beside a header of its own."""
    assert ["id", "name", "source", "target"] == [
        one.name for one in dataclasses.fields(BusMessage)
    ]
    assert ["job_id", "status", "response"] == names_of(theirs.BusJobResponseMessage)
    assert ["job_id", "job_name", "payload"] == names_of(theirs.BusJobRequestMessage)
    assert ["job_id", "reason"] == names_of(theirs.BusJobCancelMessage)
    assert ["reason"] == names_of(theirs.BusEndWorkerMessage) == names_of(theirs.BusEndMessage)
    assert ["runner", "parent", "active", "bridged", "started_at"] == names_of(
        theirs.BusWorkerReadyMessage
    )
    assert ["frame", "direction", "bridge"] == names_of(theirs.BusFrameMessage)


def names_of(cls):
    return [field.name for field in dataclasses.fields(cls)][4:]


def test_what_is_not_public_is_there_and_listed():
    """Each private name that the folder uses is in the list, and each in the list exists."""

    async def main():
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(Bot("a"))
        child = Bot("kid")
        child._parent = "a"
        await runner.add_workers(child)
        assert ["a"] == theirs.root_names(runner)

        ready = theirs.WorkerReadyData(worker_name="b", runner="other")
        await runner.registry.register(ready)
        assert "b" in runner.registry
        theirs.forget_worker(runner, "elsewhere", "b")
        assert "b" in runner.registry
        theirs.forget_worker(runner, "other", "b")
        assert "b" not in runner.registry
        assert [] == runner.registry.remote_workers

        stopped = []

        async def note():
            stopped.append(runner.bus._running)

        await runner.bus.setup(runner.task_manager)
        await runner.bus.start()
        theirs.when_stopped(runner.bus, note)
        await runner.bus.stop()
        await runner.bus.stop()
        assert [True] == stopped

    run(main())
    assert {"WorkerRegistry._remote_workers", "WorkerRunner._entries", "WorkerBus.stop"} == set(
        theirs.NON_PUBLIC
    )
    used = {
        node.attr
        for path in FOLDER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "bus", "cls"})
        and not (isinstance(node.value, ast.Call))  # of super()
    }
    assert {"_remote_workers", "_entries"} == used


def test_only_one_module_imports_pipecat():
    """All others take its names from there."""
    importers = {
        path.name
        for path in FOLDER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.ImportFrom, ast.Import))
        and any(
            name.split(".")[0] == "pipecat"
            for name in [getattr(node, "module", None) or "", *(one.name for one in node.names)]
        )
    }
    assert {"theirs.py"} == importers


@pytest.mark.parametrize(
    ("found", "is_known"),
    [("1.7.9", False), ("1.8.0", True), ("1.14.0", True), ("1.99.1", True), ("2.0.0", False), ("0.0.99", False),
     ("1.15.0.dev3", True), ("1", False)],
)  # fmt: skip
def test_versions(monkeypatch: pytest.MonkeyPatch, found, is_known):
    """From 1.8 on, within the first major version; the reason names the version."""
    monkeypatch.setattr(theirs, "version", lambda _name: found)
    problem = theirs.version_problem()
    assert is_known == (problem is None)
    assert is_known or found in (problem or "")


def test_buses_are_told_apart():
    """Those that stay in the process are bridged; one that was made out of them is not."""

    class Farther(AsyncQueueBus):
        async def publish(self, message):
            pass

    class Same(AsyncQueueBus):
        pass

    assert [True, True, False] == [
        theirs.is_in_process(bus()) for bus in (AsyncQueueBus, Same, Farther)
    ]


def test_a_program_runs_on_without_pbus(monkeypatch: pytest.MonkeyPatch, caplog, channel):
    """Without its supervisor silently; with a Pipecat that it does not know it says so."""
    file = str(FOLDER / "setup_file.py")
    monkeypatch.setenv(PIPECAT_VARIABLE, file)
    monkeypatch.delenv("PBUS_URL", raising=False)
    started = []
    monkeypatch.setattr(sidecar, "Sidecar", started.append)

    async def main():
        runner = WorkerRunner(handle_sigint=False)
        bot = Bot("a")
        await runner.add_workers(bot)
        await runner.cancel()
        await run_setup_hook(target=runner, function_name="setup_worker_runner")
        await run_setup_hook(target=bot, function_name="setup_pipeline_worker")

    run(main())
    assert ([], []) == (caplog.messages, started)
    monkeypatch.setenv("PBUS_URL", "redis://127.0.0.1:1")
    monkeypatch.setattr(theirs, "version", lambda _name: "1.7.0")
    run(main())
    assert [
        "pbus stays out: Pipecat 1.7.0 is not supported: pbus knows 1.8 and later ones of 1.x"
    ] == caplog.messages
    assert [] == started
    assert os.environ[PIPECAT_VARIABLE] == file


def test_subscriptions_are_as_they_were():
    """A subscriber hears all messages of its bus, in order, data behind system."""
    assert {"subscriber", "queue", "data_queue", "router_task", "data_task"} == {
        field.name for field in dataclasses.fields(BusSubscription)
    }
