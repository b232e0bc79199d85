"""Orders from other terminals, given to actors that are only objects."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pbus.messages import BusControlRequestMessage
from pbus.process.supervisor.control import ControlServer, is_satisfied, outcome_of


@dataclass
class FakeActor:
    """An actor in whatever condition a test wants."""

    name: str = "a"
    state: str = "ready"
    is_wanted: bool = True
    is_held: bool = False
    is_final: bool = False
    lives: int = 1
    due_life: int = 1
    code: int | None = None
    left: str = ""
    error: str | None = None
    survivors: str = ""
    child: Any = field(default_factory=lambda: SimpleNamespace(pid=7))
    orders: list[str] = field(default_factory=list)
    given: list[float | None] = field(default_factory=list)

    def start(self) -> None:
        self.orders.append("start")

    def stop(self, timeout_s: float | None = None) -> None:
        self.orders.append("stop")
        self.given.append(timeout_s)
        self.is_wanted, self.is_held = False, True

    def restart(self, timeout_s: float | None = None) -> None:
        self.orders.append("restart")
        self.given.append(timeout_s)
        self.due_life = self.lives + 1

    def record(self) -> Any:
        return SimpleNamespace(trouble=self.error)

    def down(self, state: str = "exited", code: int = 0) -> "FakeActor":
        self.state, self.code, self.child = state, code, None
        return self


def stopped(**changes: Any) -> FakeActor:
    """One that somebody took down."""
    return FakeActor(is_wanted=False, is_held=True, **changes).down()


def request(action: str, *workers: str, order: str = "1") -> BusControlRequestMessage:
    """An order as it comes from a terminal."""
    return BusControlRequestMessage(
        source="cli", target="sup", order=order, action=action, workers=workers
    )


def desk(*actors: FakeActor) -> ControlServer:
    """The desk of a supervisor that has these."""
    return ControlServer("sup", {actor.name: actor for actor in actors})


@pytest.mark.parametrize(
    ("action", "actor", "expected"),
    [
        ("stop", FakeActor(is_wanted=False, state="stopping"), None),
        ("stop", FakeActor(is_wanted=False).down("backoff"), None),
        ("stop", stopped(), ("done", "exited with code 0")),
        ("stop", FakeActor(), ("superseded", "started again meanwhile")),
        ("stop", stopped(survivors="7 lives"), ("failed", "7 lives")),
        (
            "stop",
            FakeActor(is_wanted=False, state="stopping", survivors="7 lives"),
            ("failed", "7 lives"),
        ),
        ("restart", FakeActor(state="stopping", survivors="7 lives"), ("failed", "7 lives")),
        ("restart", FakeActor(lives=1), None),
        ("restart", FakeActor(lives=1).down("backoff", 1), None),
        ("restart", FakeActor(lives=2, state="starting"), None),
        ("restart", FakeActor(lives=2), ("done", "")),
        (
            "restart",
            FakeActor(lives=2, left="2 messages are lost"),
            ("done", "2 messages are lost"),
        ),
        ("stop", stopped(left="2 lost"), ("done", "exited with code 0, 2 lost")),
        ("restart", FakeActor(lives=2).down(), ("done", "exited with code 0")),
        ("restart", FakeActor(lives=2, error="no file").down("backoff", 1), ("failed", "no file")),
        ("start", FakeActor(lives=2).down("failed", -9), ("failed", "was killed by SIGKILL")),
        ("start", stopped(lives=2), ("superseded", "stopped meanwhile")),
        ("start", FakeActor(lives=1, is_final=True), ("superseded", "the project is stopping")),
    ],
)
def test_orders_end_so(action: str, actor: FakeActor, expected: Any):
    """An order is done when the life it is about is ready, or down, and fails when that fails."""
    assert expected == outcome_of(action, actor, 2)


@pytest.mark.parametrize(
    ("action", "actor", "expected"),
    [
        ("start", FakeActor(), True),
        ("start", FakeActor(state="starting"), False),
        ("start", FakeActor(due_life=2), False),
        ("stop", stopped(), True),
        ("stop", FakeActor(is_wanted=False, state="stopping"), False),
        ("restart", FakeActor(), False),
    ],
)
def test_some_is_so_already(action: str, actor: FakeActor, expected: bool):
    """Nothing need change to start what is ready, or to stop what is down."""
    assert expected == is_satisfied(action, actor)


def test_answer_comes_when_done():
    """The answer waits for the deed; each worker has its own."""
    first, second = FakeActor("a"), FakeActor("b")
    there = desk(first, second)
    there.take(request("restart", "a", "b"))
    assert ([], ["restart"], ["restart"]) == (there.answers(), first.orders, second.orders)

    second.lives = 2
    there.look()
    (answer,) = there.answers()

    assert ("b", "done", "ready", 7) == (
        answer.worker, answer.outcome, answer.state, answer.pid,
    )  # fmt: skip
    assert ("sup", "cli", "1") == (answer.source, answer.target, answer.order)
    assert [] == there.answers()


def test_repeated_order_is_answered():
    """A terminal that heard nothing asks again: it is answered again, and nothing is done twice."""
    actor = FakeActor()
    there = desk(actor)
    for _ in range(3):
        there.take(request("stop", "a"))
    actor.down()
    there.look()
    assert 1 == len(there.answers())

    there.take(request("stop", "a"))

    assert ["done"] == [answer.outcome for answer in there.answers()]
    assert ["stop"] == actor.orders


@pytest.mark.parametrize(("action", "given"), [("stop", 60.0), ("restart", 0.5)])
def test_jobs_get_the_seconds_ordered(action: Any, given: float):
    """What the order says of them is passed on."""
    actor = FakeActor()
    order = BusControlRequestMessage(
        source="cli", target="sup", order="1", action=action, workers=("a",), timeout_s=given
    )
    desk(actor).take(order)

    assert [given] == actor.given


def test_strangers_are_refused():
    """Names of others, and orders while everything stops."""
    there = desk(FakeActor("a", is_final=True))
    there.take(request("start", "a", "x"))

    assert [
        ("a", "refused", "the project is stopping"),
        ("x", "refused", "this supervisor has no such worker"),
    ] == [(answer.worker, answer.outcome, answer.detail) for answer in there.answers()]


def test_ended_worker_is_held_down():
    """Stopping one that is over already keeps it from counting as over by itself."""
    actor = FakeActor(is_wanted=False).down()
    there = desk(actor)
    there.take(request("stop", "a"))

    assert ["unchanged"] == [answer.outcome for answer in there.answers()]
    assert actor.is_held


def test_orders_are_forgotten():
    """Old orders fall, carried out or not, so that a supervisor may run for ever."""
    there = desk(FakeActor("a"), FakeActor("b"))
    for number in range(1000):
        there.take(request("start", "a", order=f"done {number}"))
        there.take(request("restart", "b", order=f"open {number}"))

    assert 1000 == len(there.answers())
    assert 300 > len(there._orders)
    assert 300 > len(there._open)
