"""Plans that are asked of a supervisor: lost answers, errors of the other end, numbers of replicas."""

from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.bus.subscriber import BusSubscriber
from pbus.client import Client
from pbus.client.control import project_changes
from pbus.client.control.project_changes import remote_error, request_plan
from pbus.errors import (
    ControlError,
    ControlRefusedError,
    NothingRunningError,
    ProcessError,
    TopologyError,
    UnknownNameError,
)
from pbus.leases import LEASE_S
from pbus.messages import (
    BusControlRequestMessage,
    BusControlResponseMessage,
    BusMessage,
    BusPlanRequestMessage,
    BusPlanResponseMessage,
)
from pbus.observe import HostRecord, ProcessRecord
from pbus.process.supervisor.changes.plan import Change, Plan
from pbus.testing import FakeClock

T = TypeVar("T")

PLAN = Plan(changes=(Change("s", "scale", ("1 → 2",), ("s.2",)),))


def played(scene: Coroutine[Any, Any, T]) -> T:
    """What comes of it when no time passes before all is said."""
    return FakeClock().run(scene)


class FakeSupervisor(BusSubscriber):
    """Answers requests for plans from the n-th on, and carries plans out."""

    def __init__(self, bus: AsyncQueueBus, first: int = 1, outcome: str = "done") -> None:
        self.name = "sup"
        self.plans: list[BusPlanRequestMessage] = []
        self.carried_out: list[BusControlRequestMessage] = []
        self.answer: dict[str, Any] = {"plan": msgspec.to_builtins(PLAN)}
        self._bus, self._first, self._outcome = bus, first, outcome

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusPlanRequestMessage):
            self.plans.append(message)
            if len(self.plans) >= self._first:
                answer = BusPlanResponseMessage(
                    source="sup",
                    target=message.source,
                    request_id=message.request_id,
                    **self.answer,
                )
                await self._bus.send(answer)
        elif isinstance(message, BusControlRequestMessage):
            self.carried_out.append(message)
            for worker in message.workers:
                done: Any = self._outcome
                await self._bus.send(
                    BusControlResponseMessage(
                        source="sup",
                        target=message.source,
                        request_id=message.request_id,
                        worker=worker,
                        outcome=done,
                    )
                )


async def put_record(bus: AsyncQueueBus, *names: str) -> None:
    """Have the supervisor known with its workers."""
    processes = tuple(ProcessRecord(name=name, state="ready") for name in names)
    record = HostRecord(
        project="p",
        host="h",
        pid=1,
        session="s",
        time=1.0,
        bus="",
        processes=processes,
        address="sup",
    )
    await bus.leases.put_record("sup", msgspec.json.encode(record), ttl_s=LEASE_S)


def test_plan_is_carried_out_by_its_id():
    """What was shown is what is done: the second request names the plan of the first."""

    async def main() -> None:
        async with AsyncQueueBus() as bus:
            supervisor = FakeSupervisor(bus)
            await bus.subscribe(supervisor)
            planned = await request_plan(bus, lambda: "cli-1", "sup", "id-7")
            assert planned.plan == PLAN
            told: list[str] = []
            results = await planned.carry_out(60.0, lambda one: told.append(one.worker))
            assert (["s.2"], "done") == (told, results[0].outcome)
            (request,) = supervisor.carried_out
            assert ("id-7", "apply", ("s.2",)) == (
                request.request_id, request.action, request.workers,
            )  # fmt: skip

    played(main())


def test_empty_plan_asks_for_nothing():
    """Nothing to do is done at once."""

    async def main() -> None:
        async with AsyncQueueBus() as bus:
            supervisor = FakeSupervisor(bus)
            supervisor.answer = {"plan": msgspec.to_builtins(Plan())}
            await bus.subscribe(supervisor)
            planned = await request_plan(bus, lambda: "cli-1", "sup", "id")
            assert [] == await planned.carry_out(60.0, lambda _: None)
            assert [] == supervisor.carried_out

    played(main())


def test_lost_answer_is_asked_for():
    """Under the same id, so that the supervisor makes one plan of it."""

    async def main() -> None:
        async with AsyncQueueBus() as bus:
            supervisor = FakeSupervisor(bus, first=3)
            await bus.subscribe(supervisor)
            planned = await request_plan(bus, lambda: "cli-1", "sup", "id", {"s": 2})
            assert planned.plan == PLAN
            assert [("id", {"s": 2})] * 3 == [
                (one.request_id, one.scale) for one in supervisor.plans
            ]

    played(main())


def test_silent_supervisor_is_an_error(monkeypatch: pytest.MonkeyPatch):
    """After the time that reading the file may take."""
    monkeypatch.setattr(project_changes, "_PLAN_S", 0.2)

    async def main() -> None:
        async with AsyncQueueBus() as bus:
            await bus.subscribe(FakeSupervisor(bus, first=1000))
            await request_plan(bus, lambda: "cli-1", "sup", "id")

    with pytest.raises(ProcessError, match="does not answer"):
        played(main())


@pytest.mark.parametrize(
    ("kind", "cls"),
    [
        ("ControlRefusedError", ControlRefusedError),
        ("TopologyError", TopologyError),
        ("NoSuchError", ProcessError),
        ("BaseException", ProcessError),
        ("sendable", ProcessError),
    ],
)
def test_error_of_the_other_end(kind: str, cls: type[Exception]):
    """Its class decides the exit code, where it is one of ours; its texts are shown."""
    error = remote_error(kind, "line 3: no", "mend it")
    assert (cls, "line 3: no", "mend it") == (type(error), error.message, error.hint)


def test_refused_plan_is_raised():
    """As it would have been raised here."""

    async def main() -> None:
        async with AsyncQueueBus() as bus:
            supervisor = FakeSupervisor(bus)
            supervisor.answer = {"error": "ControlRefusedError", "text": "s=0: no", "hint": "stop"}
            await bus.subscribe(supervisor)
            await request_plan(bus, lambda: "cli-1", "sup", "id", {"s": 0})

    with pytest.raises(ControlRefusedError, match="s=0: no"):
        played(main())


def test_client_scales():
    """By the supervisor that runs the worker; a replica that is not as wished is an error."""

    async def main() -> None:
        async with AsyncQueueBus() as bus, Client(bus) as client:
            with pytest.raises(NothingRunningError):
                await client.control.scale({"s": 2})
            await put_record(bus, "s.1")
            supervisor = FakeSupervisor(bus)
            await bus.subscribe(supervisor)
            assert ["s.2"] == [one.worker for one in await client.control.scale({"s": 2})]
            assert [{"s": 2}] == [one.scale for one in supervisor.plans]
            with pytest.raises(UnknownNameError):
                await client.control.scale({"t": 2})
            supervisor._outcome = "failed"
            with pytest.raises(ControlError, match=r"not scaled: s\.2"):
                await client.control.scale({"s": 2})

    played(main())
