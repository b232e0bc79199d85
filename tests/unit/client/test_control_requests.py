"""The workers that a control request is about, and the gathering of answers."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client import Client
from pbus.client.control import control_requester
from pbus.client.control.control_requester import ControlRequester, ControlResult
from pbus.client.control.worker_control import choose_workers
from pbus.errors import (
    ControlError,
    ControlTimeoutError,
    NothingRunningError,
    ProcessError,
    UnknownNameError,
)
from pbus.leases import LEASE_S, Lease
from pbus.messages import BusControlRequestMessage, BusControlResponseMessage, BusMessage
from pbus.observe import HostRecord, ProcessRecord
from pbus.testing import FakeClock
from pbus_cli.call.control_workers import result_text

T = TypeVar("T")


def host(address: str, *names: str, time: float = 1.0) -> HostRecord:
    """What a supervisor says that it runs."""
    return HostRecord(
        project="p", host="h", pid=1, session="s", time=time, bus="b", address=address,
        processes=tuple(ProcessRecord(name=name, state="ready") for name in names),
    )  # fmt: skip


HOSTS = [host("one", "a", "ab", "x.1", "x.2"), host("two", "x.3", "y")]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a"], {"one": ["a"]}),
        (["x"], {"one": ["x.1", "x.2"], "two": ["x.3"]}),
        (["x.2", "x"], {"one": ["x.2", "x.1"], "two": ["x.3"]}),
        (["x.?"], {"one": ["x.1", "x.2"], "two": ["x.3"]}),
        (["a*"], {"one": ["a", "ab"]}),
        (["y", "[ax]*"], {"two": ["y", "x.3"], "one": ["a", "ab", "x.1", "x.2"]}),
        (["*"], {"one": ["a", "ab", "x.1", "x.2"], "two": ["x.3", "y"]}),
    ],
)
def test_names_find_workers(names: list[str], expected: Any):
    """A worker, all replicas of one, or whatever matches, each at the supervisor that has it."""
    assert expected == choose_workers(names, HOSTS)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("xx", "did you mean 'x'?"),
        ("z*", "there are: a, ab, x, x.1, x.2, x.3, y"),
        ("mine", "was not started by `pbus up`"),
    ],
)
def test_unknown_names_are_refused(name: str, problem: str):
    """With the nearest, or with the reason; then no worker is controlled."""
    mine = Lease(name="mine", incarnation="i", runner="r", host="h", pid=1)

    with pytest.raises(UnknownNameError) as caught:
        choose_workers(["a", name], HOSTS, [mine])
    assert problem in str(caught.value)


def test_newer_record_holds():
    """Of a supervisor that was killed the record outlives it for a while."""
    hosts = [host("new", "a", time=2.0), host("old", "a", time=1.0)]

    assert {"new": ["a"]} == choose_workers(["a"], hosts)


@pytest.mark.parametrize(
    ("action", "changes", "expected"),
    [
        ("restart", {"pid": 7}, "a was restarted (pid 7)"),
        ("restart", {"detail": "exited with code 0"}, "a was restarted (exited with code 0)"),
        ("restart", {"pid": 7, "detail": "2 are lost"}, "a was restarted (pid 7, 2 are lost)"),
        ("start", {"outcome": "unchanged", "pid": 7}, "a was running already (pid 7)"),
        ("stop", {"outcome": "unchanged"}, "a was not running"),
        ("stop", {"outcome": "superseded", "detail": "why"}, "a superseded: why"),
        ("start", {"outcome": "failed", "detail": "no file"}, "a failed: no file"),
    ],
)
def test_answers_are_sentences(action: Any, changes: Any, expected: str):
    """What became of a worker, in a line."""
    values = {"worker": "a", "outcome": "done", **changes}

    assert expected == result_text(action, ControlResult(**values))


class FakeSupervisor(BusSubscriber):
    """Answers as the test says, given how often it was asked."""

    def __init__(
        self, bus: AsyncQueueBus, address: str, answers: Callable[[int, str], str | None]
    ) -> None:
        self.name = address
        self.requests: list[BusControlRequestMessage] = []
        self._bus = bus
        self._answers = answers

    async def on_bus_message(self, message: BusMessage) -> None:
        assert isinstance(message, BusControlRequestMessage)
        self.requests.append(message)
        for worker in message.workers:
            outcome = self._answers(len(self.requests), worker)
            if outcome is not None:
                answer = BusControlResponseMessage(
                    source=self.name, target=message.source, request_id=message.request_id,
                    worker=worker, outcome=outcome,  # type: ignore[arg-type]
                )  # fmt: skip
                await self._bus.send(answer)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again after more time than a busy machine needs; by the fake clock that is soon."""
    monkeypatch.setattr(control_requester, "_AGAIN_S", 60.0)


def played(scene: Coroutine[Any, Any, T]) -> T:
    """What comes of it when no time passes before all is said."""
    return FakeClock().run(scene)


async def given(
    answers: Callable[[int, str], str | None],
    timeout_s: float = 3600.0,
    *,
    with_records: bool = True,
    states: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> tuple[dict[str, str], list[BusControlRequestMessage]]:
    """What comes of an order to two supervisors, and what each was asked."""
    async with AsyncQueueBus() as bus:
        plan = {"one": ["a", "b"], "two": ["c"]}
        supervisors = [FakeSupervisor(bus, address, answers) for address in plan]
        for supervisor in supervisors:
            await bus.subscribe(supervisor)
            if with_records:
                record = host(supervisor.name, *plan[supervisor.name])
                processes = [
                    msgspec.structs.replace(one, **states.get(one.name, {}))
                    for one in record.processes
                ]
                record = msgspec.structs.replace(record, processes=tuple(processes))
                await bus.leases.put_record(
                    supervisor.name, msgspec.json.encode(record), ttl_s=LEASE_S
                )
        requester = ControlRequester(bus, "cli-1", "restart", plan)
        await bus.subscribe(requester)
        told: list[str] = []
        answered = await requester.run(timeout_s, lambda result: told.append(result.worker))
    assert told == [answer.worker for answer in answered]
    return (
        {answer.worker: answer.outcome for answer in answered},
        [request for supervisor in supervisors for request in supervisor.requests],
    )


def test_all_answers_are_gathered():
    """From each supervisor those of its own workers, good and bad."""
    outcomes, requests = played(given(lambda _, worker: "failed" if worker == "b" else "done"))

    assert {"a": "done", "b": "failed", "c": "done"} == outcomes
    assert [("a", "b"), ("c",)] == [request.workers for request in requests]
    assert 1 == len({request.request_id for request in requests})


def test_failures_are_an_error():
    """Where a worker is not as asked for, the error has the results of all."""

    async def main() -> ControlError:
        async with AsyncQueueBus() as bus, Client(bus) as client:
            for address, names in (("one", ("a", "b")), ("two", ("c",))):
                supervisor = FakeSupervisor(
                    bus, address, lambda _, worker: "failed" if worker == "b" else "unchanged"
                )
                await bus.subscribe(supervisor)
                record = msgspec.json.encode(host(address, *names))
                await bus.leases.put_record(address, record, ttl_s=LEASE_S)
            assert ["c"] == [one.worker for one in await client.control.start("c")]
            with pytest.raises(ControlError, match="not started: b") as caught:
                await client.control.start("*")
        return caught.value

    error = played(main())
    assert ("start", ("b",)) == (error.action, error.failed)
    assert {"a": True, "b": False, "c": True} == {one.worker: one.is_ok for one in error.results}


def test_nothing_to_control_is_an_error():
    """On a channel without a supervisor."""

    async def main() -> None:
        async with AsyncQueueBus(channel="c-1") as bus, Client(bus) as client:
            await client.control.stop("a")

    with pytest.raises(NothingRunningError, match="c-1"):
        played(main())


def test_lost_answers_are_asked_for():
    """What was not answered is asked again, under the same order."""
    outcomes, requests = played(
        given(lambda times, worker: "done" if worker == "a" or times == 3 else None)
    )

    assert {"a", "b", "c"} == set(outcomes)
    assert [("a", "b"), ("b",), ("b",), ("c",), ("c",), ("c",)] == [
        request.workers for request in requests
    ]
    assert 1 == len({request.request_id for request in requests})


def test_deadline_names_the_late(monkeypatch: pytest.MonkeyPatch):
    """Who is not done in time is named, with its state and the cause of that."""
    late = "cannot restart within 0.2 s: b (waiting for db to be ready); it is still tried"

    async def main(**options: Any) -> ControlTimeoutError:
        with pytest.raises(ControlTimeoutError) as caught:
            await given(lambda _, worker: None if worker == "b" else "done", 0.2, **options)
        return caught.value

    state = {"state": "waiting", "reason": "waiting for db to be ready"}
    error = played(main(states={"b": state, "a": {"state": "ready"}}))
    assert (late, ("b",), 0.2) == (error.message, error.workers, error.timeout_s)
    assert {"b": "waiting for db to be ready"} == error.states

    error = played(main(states={"b": {"state": "backoff", "reason": "exited with code 3"}}))
    assert "b (backoff, exited with code 3)" in error.message

    monkeypatch.setattr(control_requester, "read_facts", never)
    monkeypatch.setattr(control_requester, "_STATES_S", 0.01)
    error = played(main())
    assert ("cannot restart within 0.2 s: b; it is still tried", {}) == (
        error.message,
        error.states,
    )


async def never(_: object) -> Any:
    """Asking a broker that does not answer."""
    await asyncio.Event().wait()


def test_gone_supervisor_is_noticed():
    """A supervisor whose record is missing for some looks answers no more."""
    with pytest.raises(ProcessError, match="the supervisor of a, b is gone"):
        played(given(lambda _, __: None, with_records=False))
