"""The rules of the start order, on workers that are only objects."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.process.project.recovery_log import StopTime
from pbus.process.supervisor import start_order
from pbus.process.supervisor.start_order import StartOrder
from pbus.process.supervisor_events import Exited, Started
from pbus.topology.model import Member, WorkerInstance, WorkerSpec
from pbus.topology.policy.policies import Dependency, HealthSpec, StopSpec, TcpProbe


class FakeWorker:
    """A worker whose state the test sets; it keeps what it is told."""

    def __init__(self, name, *needs, group="", grace_s=None, health=None, members=()):
        depends_on = tuple(
            one if isinstance(one, Dependency) else Dependency(worker=one) for one in needs
        )
        self.next_instance = WorkerInstance(
            name=name,
            spec=WorkerSpec(
                name=group or name,
                working_dir=Path("/"),
                joins=True,
                depends_on=depends_on,
                stop=StopSpec(grace_s=grace_s),
                health=health,
                members=members,
            ),
        )
        self.name = name
        self.status = SimpleNamespace(
            instance=self.next_instance,
            state="ready",
            has_succeeded=False,
            child=object(),
            is_healthy=None,
            is_active=True,
            start_count=1,
        )
        self.target = SimpleNamespace(
            is_final=False,
            is_stopped_by_user=False,
            restart_requested=False,
            is_rolling=False,
            is_wanted=True,
            wake=lambda: self.told.append("wake"),
            rejoin=lambda: self.told.append("rejoin"),
        )
        self.joins = True
        self.is_over = False
        self.is_running = True
        self.told = []
        self.find_blocker = None

    @property
    def names(self):
        return self.status.instance.names

    def finish_and_stop(self):
        self.target.is_final = True

    def stop(self, left_s):
        self.told.append(("stop", left_s))

    def restart(self):
        self.told.append("restart")

    def end(self):
        self.is_running, self.status.state = False, "stopped"

    @property
    def is_stopped(self):
        return any(one[0] == "stop" for one in self.told if isinstance(one, tuple))


def order_of(*workers):
    kill_now = asyncio.Event()
    return StartOrder(workers, kill_now), kill_now


def blocker(worker):
    """What a worker waits for, and whether that has failed."""
    found = worker.find_blocker()
    return None if found is None else (found.text, found.has_failed)


# Start


@pytest.mark.parametrize(
    ("condition", "state", "about", "said"),
    [
        ("started", "starting", {}, None),
        ("started", "backoff", {"child": None}, "a to start (backoff)"),
        ("ready", "ready", {}, None),
        ("ready", "starting", {}, "a to be ready"),
        ("ready", "backoff", {}, "a to be ready (backoff)"),
        ("active", "ready", {}, None),
        ("active", "ready", {"is_active": False}, "a to be active"),
        ("active", "starting", {}, "a to be active"),
        ("healthy", "ready", {}, None),
        ("completed", "ready", {}, "a to complete"),
        ("completed", "exited", {"has_succeeded": True}, None),
        ("ready", "exited", {"has_succeeded": True}, None),
    ],
)  # fmt: skip
def test_conditions(condition, state, about, said):
    """Each is met by its state; else it is named, with a state that needs attention."""
    one = FakeWorker("a")
    other = FakeWorker("b", Dependency(worker="a", condition=condition))
    order_of(one, other)
    one.status.state = state
    vars(one.status).update(about)
    assert (None if said is None else (said, False)) == blocker(other)


def test_health_is_waited_for_where_it_is_looked_at():
    """Unknown is not healthy, and what was healthy may be so no more."""
    one = FakeWorker("a", health=HealthSpec(probe=TcpProbe(host="x", port=1)))
    other = FakeWorker("b", Dependency(worker="a", condition="healthy"))
    order_of(one, other)
    for is_healthy, said in ((None, "a to be healthy"), (True, None), (False, "a to be healthy")):
        one.status.is_healthy = is_healthy
        assert said == (blocker(other) or (None,))[0]


def test_command_that_joins_no_bus_is_active_when_it_is_ready():
    """It has no lease that could say so."""
    one = FakeWorker("a")
    one.joins, one.status.is_active = False, False
    other = FakeWorker("b", Dependency(worker="a", condition="active"))
    order_of(one, other)
    assert blocker(other) is None


def test_restart_that_was_asked_for_is_waited_for():
    """It is about to end, whatever its state says; only its start may have been enough."""
    one = FakeWorker("a")
    one.target.restart_requested = True
    others = [FakeWorker(c, Dependency(worker="a", condition=c)) for c in ("started", "ready")]
    order_of(one, *others)
    assert ("a to start", False) == blocker(others[0])
    assert ("a to be ready", False) == blocker(others[1])


def test_failure_of_what_is_required_is_told():
    """What is not required is waited for only while it may still come."""
    one = FakeWorker("a")
    needs = FakeWorker("b", "a")
    likes = FakeWorker("c", Dependency(worker="a", required=False))
    order_of(one, needs, likes)
    one.status.state = "starting"
    assert ("a to be ready", False) == blocker(likes)
    one.status.state, one.is_over = "failed", True
    assert ("a (failed)", True) == blocker(needs)
    assert blocker(likes) is None


def test_success_does_not_count_after_a_stop_by_the_user():
    """It stays down until it is started again."""
    one = FakeWorker("a")
    one.status.has_succeeded, one.status.state, one.is_over = True, "exited", True
    other = FakeWorker("b", "a")
    order_of(one, other)
    assert blocker(other) is None
    one.target.is_stopped_by_user = True
    assert ("a (stopped)", True) == blocker(other)


def test_group_counts_as_a_whole():
    """Each replica is waited for, and a worker that is not supervised is none to wait for."""
    replicas = [FakeWorker(f"a.{number}", group="a") for number in (1, 2)]
    other = FakeWorker("b", "a", "elsewhere")
    order_of(*replicas, other)
    assert blocker(other) is None
    replicas[1].status.state = "starting"
    assert ("a.2 to be ready", False) == blocker(other)


def test_process_that_still_runs_a_worker_is_waited_for():
    """After a change of `process`: two processes never run one name."""
    members = tuple(
        Member(name=name, group=name, worker="w:W", args={}, active=True, file=Path("/t.yaml"))
        for name in "ab"
    )
    shared = FakeWorker("a", members=members)
    alone = FakeWorker("b")
    order_of(shared, alone)
    assert ("a to end", False) == blocker(alone)
    shared.end()
    assert blocker(alone) is None


def test_changes_wake_those_that_wait():
    """And only those."""
    one, other, third = FakeWorker("a"), FakeWorker("b", "a"), FakeWorker("c")
    order, _ = order_of(one, other, third)
    other.status.state = "waiting"
    order.on_change(Exited("a", 1, 0))
    assert [[], ["wake"], []] == [one.told, other.told, third.told]


@pytest.mark.parametrize(
    ("start_count", "is_rolling", "is_wanted", "restarts"),
    [
        (1, False, True, False),
        (2, False, True, True),
        (2, True, True, False),
        (2, False, False, False),
    ],
)
def test_dependents_are_restarted_with_it(start_count, is_rolling, is_wanted, restarts):
    """At each start but the first, unless they are stopped, or replicas take turns."""
    one = FakeWorker("a")
    with_it = FakeWorker("b", Dependency(worker="a", restart=True))
    order, _ = order_of(one, with_it, FakeWorker("c", "a"))
    one.status.start_count, one.target.is_rolling = start_count, is_rolling
    with_it.target.is_wanted = is_wanted
    order.on_change(Started("a", 1, "i"))
    assert (["restart"] if restarts else []) == with_it.told


# Stop


def test_time_is_shared_by_a_chain(monkeypatch):
    """What dependents have used is gone, but for some; a grace of its own wins over the usual time."""
    now = [100.0]
    monkeypatch.setattr(start_order.time, "monotonic", lambda: now[0])
    first, second, own = FakeWorker("a"), FakeWorker("b", "a"), FakeWorker("own", grace_s=90.0)
    order, _ = order_of(first, second, own)
    order.stop(StopTime(30.0, is_usual=True))
    assert [("stop", 30.0)] == second.told
    assert [("stop", None)] == own.told
    now[0] += 29.5
    second.end()
    order.on_change(Exited("b", 1, 0))
    assert [("stop", 3.0)] == first.told


@pytest.mark.parametrize(
    ("given_s", "later_s", "left_s"), [(30.0, 10.0, 20.0), (2.0, 5.0, 2.0), (0.0, 5.0, 0.0)]
)
def test_time_that_was_asked_for_is_for_all(monkeypatch, given_s, later_s, left_s):
    """Also for those with a grace of their own."""
    now = [100.0]
    monkeypatch.setattr(start_order.time, "monotonic", lambda: now[0])
    first, second = FakeWorker("a", grace_s=90.0), FakeWorker("b", "a")
    order, _ = order_of(first, second)
    order.stop(StopTime(given_s))
    now[0] += later_s
    second.end()
    order.stop_next()
    assert [("stop", left_s)] == first.told


def test_all_at_once_when_they_are_to_be_killed():
    """Nothing is waited for any more."""
    first, second = FakeWorker("a"), FakeWorker("b", "a")
    order, kill_now = order_of(first, second)
    order.stop()
    assert not first.is_stopped
    kill_now.set()
    order.stop_next()
    assert first.is_stopped


def test_worker_is_kept_while_others_are_taken_out():
    """The last of a group waits for those that need it, one of several does not."""
    replicas = [FakeWorker(f"a.{number}", group="a") for number in (1, 2)]
    user = FakeWorker("b", "a")
    order, _ = order_of(*replicas, user)
    order.take_out([replicas[0]])
    assert replicas[0].is_stopped  # another one of its group stays
    order.take_out([replicas[1], user])
    assert user.is_stopped
    assert not replicas[1].is_stopped
    order.keep(replicas[1])
    assert ["rejoin"] == replicas[1].told
    user.end()
    order.on_change(Exited("b", 1, 0))
    assert not replicas[1].is_stopped


@st.composite
def graphs(draw):
    """Workers that need some of those before them, in any order."""
    count = draw(st.integers(1, 8))
    needs = [
        draw(st.sets(st.integers(0, max(0, at - 1)), max_size=3)) - {at} for at in range(count)
    ]
    workers = [
        FakeWorker(f"w{at}", *(f"w{one}" for one in sorted(needs[at]))) for at in range(count)
    ]
    return draw(st.permutations(workers))


@given(graphs(), st.randoms(use_true_random=False))
def test_no_worker_ends_before_those_that_need_it(workers, random):
    """Whatever the graph, and whichever ends first: all are stopped, in the end."""
    order, _ = order_of(*workers)
    names = order.sorted_groups(worker.name for worker in workers)
    for worker in workers:
        for dependency in worker.status.instance.spec.depends_on:
            assert names.index(dependency.worker) < names.index(worker.name)
    order.stop()
    running = list(workers)
    while running:
        for worker in running:
            needed_by = [
                one for one in running
                if worker.name in {need.worker for need in one.status.instance.spec.depends_on}
            ]  # fmt: skip
            assert worker.is_stopped == (not needed_by)
        one = random.choice([worker for worker in running if worker.is_stopped])
        one.end()
        running.remove(one)
        order.on_change(Exited(one.name, 1, 0))


def test_cycle_stops_nothing_for_ever():
    """It is refused in files; a name of it is still put somewhere."""
    workers = FakeWorker("a", "b"), FakeWorker("b", "a"), FakeWorker("c", "a")
    order, _ = order_of(*workers)
    assert {"a", "b", "c"} == set(order.sorted_groups(["a", "b", "c"]))
    assert ["c"] == order.sorted_groups(["c", "unknown"])
