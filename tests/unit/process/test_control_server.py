"""Control requests to workers that are only objects."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pbus.errors import ControlRefusedError, PbusError
from pbus.messages import BusControlRequestMessage, BusPlanRequestMessage
from pbus.process.supervisor.changes.plan import Change, Plan
from pbus.process.supervisor.changes.rolling import RollingRun
from pbus.process.supervisor.control import ControlServer, is_satisfied, listed, outcome_of
from support.waiting import run


@dataclass
class FakeWorker:
    """A worker in the state that a test wants; its status and target, too."""

    name: str = "a"
    state: str = "ready"
    is_wanted: bool = True
    is_stopped_by_user: bool = False
    is_final: bool = False
    is_leaving: bool = False
    start_count: int = 1
    target_start_count: int = 1
    code: int | None = None
    open_messages: str = ""
    error: str | None = None
    survivors: str = ""
    child: Any = field(default_factory=lambda: SimpleNamespace(pid=7))
    others: tuple[str, ...] = ()
    orders: list[str] = field(default_factory=list)
    given: list[float | None] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.others)

    @property
    def status(self) -> "FakeWorker":
        return self

    @property
    def target(self) -> "FakeWorker":
        return self

    @property
    def may_run(self) -> bool:
        return self.is_wanted and self.target_start_count == self.start_count

    def start(self) -> None:
        self.orders.append("start")

    def stop(self, timeout_s: float | None = None) -> None:
        self.orders.append("stop")
        self.given.append(timeout_s)
        self.is_wanted, self.is_stopped_by_user = False, True

    def restart(self, timeout_s: float | None = None) -> None:
        self.orders.append("restart")
        self.given.append(timeout_s)
        self.target_start_count = self.start_count + 1

    def record(self) -> Any:
        return SimpleNamespace(trouble=self.error)

    def down(self, state: str = "exited", code: int = 0) -> "FakeWorker":
        self.state, self.code, self.child = state, code, None
        return self


class FakeChanges:
    """Changes of the file: the keys that differ by worker, or an error."""

    def __init__(self, **keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.error: PbusError | None = None
        self.asked: list[list[str]] = []
        self.actions: dict[str, str] = {}
        self.planned = Plan()

    async def plan(self, _request_id: str, _scale: dict[str, int] | None) -> Plan:
        if self.error:
            raise self.error
        return self.planned

    def carry_out(self, _request_id: str) -> dict[str, str]:
        if self.error:
            raise self.error
        return self.actions

    async def reread(self, names: list[str]) -> dict[str, tuple[str, ...]]:
        self.asked.append(names)
        if self.error:
            raise self.error
        return self.keys


class FakeRolling:
    """Rolling restarts that end when the test says so."""

    def __init__(self) -> None:
        self.runs: list[RollingRun] = []

    def start(self, names: Any, *, timeout_s: float | None = None) -> RollingRun:
        del timeout_s
        self.runs.append(RollingRun(names))
        return self.runs[-1]


def stopped(**changes: Any) -> FakeWorker:
    """One that a user stopped."""
    return FakeWorker(is_wanted=False, is_stopped_by_user=True, **changes).down()


def request(action: str, *workers: str, order: str = "1") -> BusControlRequestMessage:
    """A control request."""
    return BusControlRequestMessage(
        source="cli", target="sup", request_id=order, action=action, workers=workers
    )


def server(*workers: FakeWorker) -> ControlServer:
    """The server of a supervisor that has these workers."""
    return ControlServer(
        "sup", {worker.name: worker for worker in workers}, FakeChanges(), FakeRolling()
    )


@pytest.mark.parametrize(
    ("action", "worker", "expected"),
    [
        ("stop", FakeWorker(is_wanted=False, state="stopping"), None),
        ("stop", FakeWorker(is_wanted=False).down("backoff"), None),
        ("stop", stopped(), ("done", "exited with code 0")),
        ("stop", FakeWorker(), ("superseded", "started again meanwhile")),
        ("stop", stopped(survivors="7 remains"), ("failed", "7 remains")),
        (
            "stop",
            FakeWorker(is_wanted=False, state="stopping", survivors="7 remains"),
            ("failed", "7 remains"),
        ),
        ("restart", FakeWorker(state="stopping", survivors="7 remains"), ("failed", "7 remains")),
        ("restart", FakeWorker(start_count=1), None),
        ("restart", FakeWorker(start_count=1).down("backoff", 1), None),
        ("restart", FakeWorker(start_count=2, state="starting"), None),
        ("restart", FakeWorker(start_count=2), ("done", "")),
        (
            "restart",
            FakeWorker(start_count=2, open_messages="2 messages are lost"),
            ("done", "2 messages are lost"),
        ),
        ("stop", stopped(open_messages="2 lost"), ("done", "exited with code 0, 2 lost")),
        ("restart", FakeWorker(start_count=2).down(), ("done", "exited with code 0")),
        (
            "restart",
            FakeWorker(start_count=2, error="no file").down("backoff", 1),
            ("failed", "no file"),
        ),
        (
            "start",
            FakeWorker(start_count=2).down("failed", -9),
            ("failed", "was killed by SIGKILL"),
        ),
        ("start", stopped(start_count=2), ("superseded", "stopped meanwhile")),
        (
            "start",
            FakeWorker(start_count=1, is_final=True),
            ("superseded", "the project is stopping"),
        ),
    ],
)
def test_orders_end_so(action: str, worker: FakeWorker, expected: Any):
    """A request is done when its incarnation is ready, or down, and fails when that fails."""
    assert expected == outcome_of(action, worker, 2)


@pytest.mark.parametrize(
    ("action", "worker", "expected"),
    [
        ("start", FakeWorker(), True),
        ("start", FakeWorker(state="starting"), False),
        ("start", FakeWorker(target_start_count=2), False),
        ("stop", stopped(), True),
        ("stop", FakeWorker(is_wanted=False, state="stopping"), False),
        ("restart", FakeWorker(), False),
    ],
)
def test_some_is_so_already(action: str, worker: FakeWorker, expected: bool):
    """Nothing need change to start what is ready, or to stop what is down."""
    assert expected == is_satisfied(action, worker)


def test_answer_comes_when_done():
    """The answer waits for the deed; each worker has its own."""
    first, second = FakeWorker("a"), FakeWorker("b")
    there = server(first, second)
    run(there.submit(request("restart", "a", "b")))
    assert ([], ["restart"], ["restart"]) == (there.drain_responses(), first.orders, second.orders)

    second.start_count = 2
    there.check()
    (answer,) = there.drain_responses()

    assert ("b", "done", "ready", 7) == (
        answer.worker, answer.outcome, answer.state, answer.pid,
    )  # fmt: skip
    assert ("sup", "cli", "1") == (answer.source, answer.target, answer.request_id)
    assert [] == there.drain_responses()


def test_repeated_order_is_answered():
    """A terminal that heard nothing asks again: it is answered again, and nothing is done twice."""
    worker = FakeWorker()
    there = server(worker)
    for _ in range(3):
        run(there.submit(request("stop", "a")))
    worker.down()
    there.check()
    assert 1 == len(there.drain_responses())

    run(there.submit(request("stop", "a")))

    assert ["done"] == [answer.outcome for answer in there.drain_responses()]
    assert ["stop"] == worker.orders


@pytest.mark.parametrize(("action", "given"), [("stop", 60.0), ("restart", 0.5)])
def test_jobs_get_the_seconds_ordered(action: Any, given: float):
    """What the order says of them is passed on."""
    worker = FakeWorker()
    order = BusControlRequestMessage(
        source="cli", target="sup", request_id="1", action=action, workers=("a",), timeout_s=given
    )
    run(server(worker).submit(order))

    assert [given] == worker.given


def test_strangers_are_refused():
    """Names of others, and orders while everything stops."""
    there = server(FakeWorker("a", is_final=True))
    run(there.submit(request("start", "a", "x")))

    assert [
        ("a", "refused", "the project is stopping"),
        ("x", "refused", "this supervisor has no such worker"),
    ] == [(answer.worker, answer.outcome, answer.detail) for answer in there.drain_responses()]


def test_ended_worker_stays_stopped():
    """Stopping one that is over already keeps it from counting as over by itself."""
    worker = FakeWorker(is_wanted=False).down()
    there = server(worker)
    run(there.submit(request("stop", "a")))

    assert ["unchanged"] == [answer.outcome for answer in there.drain_responses()]
    assert worker.is_stopped_by_user


def test_orders_are_forgotten():
    """Old orders fall, carried out or not, so that a supervisor may run for ever."""
    there = server(FakeWorker("a"), FakeWorker("b"))
    for number in range(1000):
        run(there.submit(request("start", "a", order=f"done {number}")))
        run(there.submit(request("restart", "b", order=f"open {number}")))

    assert 1000 == len(there.drain_responses())
    assert 300 > len(there._requests)
    assert 300 > len(there._open)


def test_new_process_takes_the_edited_file():
    """What a new process takes from the file is told; one that only stops, or runs, takes nothing."""
    first, second, third = FakeWorker("a"), FakeWorker("b"), stopped(name="c")
    changes = FakeChanges(a=("args.x", "env.Y"))
    there = ControlServer("sup", {"a": first, "b": second, "c": third}, changes, FakeRolling())
    run(there.submit(request("restart", "a", order="1")))
    run(there.submit(request("stop", "b", order="2")))
    run(there.submit(request("start", "a", "c", order="3")))

    first.start_count = 2
    there.check()

    assert [["a"], ["a", "c"]] == changes.asked
    details = {one.request_id: one.detail for one in there.drain_responses() if one.worker == "a"}
    assert "changed: args.x, env.Y" == details["1"]


def test_broken_file_restarts_nothing():
    """Each worker is answered with the errors of the file, and goes on as it is."""
    worker = FakeWorker("a")
    changes = FakeChanges()
    changes.error = ControlRefusedError("line 3: no such key")
    there = ControlServer("sup", {"a": worker}, changes, FakeRolling())
    run(there.submit(request("restart", "a")))

    (answer,) = there.drain_responses()
    assert ("refused", "line 3: no such key") == (answer.outcome, answer.detail)
    assert [] == worker.orders


def test_plan_is_answered_or_its_error():
    """A plan travels as plain values; an error by its class, for its exit code at the other end."""
    changes = FakeChanges()
    changes.planned = Plan(changes=(Change("a", "restart", ("args.x",), ("a",)),), fixed=("loop",))
    there = ControlServer("sup", {}, changes, FakeRolling())
    wish = BusPlanRequestMessage(source="cli", target="sup", request_id="7")
    run(there.plan(wish))
    changes.error = ControlRefusedError("no", hint="yes")
    run(there.plan(wish))

    good, bad = there.drain_responses()

    assert ["loop"] == list(good.plan["fixed"])
    assert "restart" == good.plan["changes"][0]["action"]
    assert ("7", "cli", None) == (bad.request_id, bad.target, bad.plan)
    assert ("ControlRefusedError", "no", "yes") == (bad.error, bad.text, bad.hint)


def test_each_step_of_a_plan_is_awaited():
    """Restarted: until ready; updated: at once; removed: until it is gone, or wanted again."""
    workers = {name: FakeWorker(name) for name in ("kept", "new", "old", "back")}
    workers["old"].is_leaving = workers["back"].is_leaving = True
    workers["kept"].target_start_count = 2
    workers["new"].start_count = workers["new"].target_start_count = 0
    workers["new"].state = "starting"
    changes = FakeChanges()
    changes.actions = {"kept": "restart", "new": "add", "old": "remove", "back": "remove"}
    there = ControlServer("sup", workers, changes, FakeRolling())
    run(there.submit(request("apply", "kept", "new", "old", "back", "same")))
    outcomes = [(one.worker, one.outcome) for one in there.drain_responses()]
    assert [("same", "done")] == outcomes  # meanwhile nothing was to be done for it

    workers["new"].state, workers["new"].start_count = "ready", 1
    workers["back"].is_leaving = False
    del workers["old"]
    there.check()

    outcomes = [(one.worker, one.outcome) for one in there.drain_responses()]
    assert [("new", "done"), ("old", "done"), ("back", "superseded")] == outcomes


def test_refused_plan_is_told_for_each_worker():
    """A plan that is not known any more changes nothing."""
    changes = FakeChanges()
    changes.error = ControlRefusedError("the plan is not known any more")
    there = ControlServer("sup", {"a": FakeWorker("a")}, changes, FakeRolling())
    run(there.submit(request("apply", "a", "b")))
    assert ["refused", "refused"] == [one.outcome for one in there.drain_responses()]


def test_many_keys_are_counted():
    """A line names the first keys only."""
    assert "a, b" == listed(("a", "b"))
    assert "k0, k1, k2, k3, k4, k5, k6, k7 and 2 more" == listed([f"k{n}" for n in range(10)])


def test_rolling_restart_is_answered_as_it_goes():
    """Each worker has its answer when its own process was replaced, with what it took of the file."""
    workers = {name: FakeWorker(name) for name in ("s.1", "s.2")}
    rolling, changes = FakeRolling(), FakeChanges(**{"s.1": ("args.x",)})
    there = ControlServer("sup", workers, changes, rolling)
    run(there.submit(request("roll", "s.1", "s.2")))
    assert [["s.1", "s.2"]] == changes.asked
    assert [] == there.drain_responses()

    rolling.runs[0].outcomes["s.1"] = ("done", "")
    there.check()
    (first,) = there.drain_responses()
    rolling.runs[0].outcomes["s.2"] = ("refused", "left as it was")
    there.check()
    (second,) = there.drain_responses()

    assert ("s.1", "done", "changed: args.x") == (first.worker, first.outcome, first.detail)
    assert ("s.2", "refused", "left as it was") == (
        second.worker, second.outcome, second.detail,
    )  # fmt: skip
    assert [] == workers["s.1"].orders


@pytest.mark.parametrize(
    ("worker", "detail"),
    [
        (FakeWorker(start_count=2, others=("b", "c")), "and b, c with it, in one process"),
        (
            FakeWorker(start_count=2, others=("b",), open_messages="2 lost"),
            "2 lost, and b with it, in one process",
        ),
        (FakeWorker(start_count=2), ""),
    ],
)
def test_company_of_a_process_is_told(worker: FakeWorker, detail: str):
    """Who shares the process is concerned, too, and the answer says so."""
    worker.target_start_count = 2
    control = server(worker)
    control._requests.clear()
    answers = submitted(control, request("restart", "a"))
    worker.start_count = worker.target_start_count
    control.check()
    answers += control.drain_responses()

    assert [("done", detail)] == [(one.outcome, one.detail) for one in answers]


def submitted(control: ControlServer, message: BusControlRequestMessage) -> list[Any]:
    """The answers to a request that are there at once."""
    asyncio.run(control.submit(message))
    return list(control.drain_responses())
