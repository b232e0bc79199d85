"""The difference between workers that run and those that are wanted, without any process."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pbus.process.supervisor.changes.plan import (
    Change,
    Plan,
    Present,
    changed_keys,
    fixed_keys,
    make_plan,
)
from pbus.settings import BusSettings, DeliveryOptions
from pbus.topology.model import Topology, WorkerInstance, WorkerSpec, with_live_keys
from pbus.topology.policy.policies import Dependency, ExecProbe, HealthSpec, LimitsSpec, RestartSpec


def spec(name: str = "a", **keys: Any) -> WorkerSpec:
    """A worker that is a program."""
    values: dict[str, Any] = {"working_dir": Path("/x"), "joins": False, "command": ("run",)}
    return WorkerSpec(name=name, **{**values, **keys})


def present(*specs: WorkerSpec, down: str = "") -> list[Present]:
    """The workers of these specs, as they run."""
    return [Present(one, down) for each in specs for one in each.instances()]


def wanted(*specs: WorkerSpec) -> list[WorkerInstance]:
    """The processes of these specs."""
    return [one for each in specs for one in each.instances()]


def test_same_file_is_an_empty_plan():
    """A file that is applied twice changes nothing, replicas with their numbers included."""
    both = (spec("a", args={"x": 1}), spec("b", replicas=3, env={"N": "{replica}"}))
    plan = make_plan(present(*both), wanted(*both))
    assert Plan() == plan
    assert plan.is_empty


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], [spec("a")], [("a", "add", (), ("a",))]),
        (
            [spec("a")],
            [spec("b")],
            [("b", "add", (), ("b",)), ("a", "remove", ("not in the file any more",), ("a",))],
        ),
        (
            [spec("a", replicas=2)],
            [spec("a", replicas=4)],
            [("a", "scale", ("2 → 4",), ("a.3", "a.4"))],
        ),
        (
            [spec("a", replicas=3)],
            [spec("a", replicas=1)],
            [("a", "scale", ("3 → 1",), ("a.2", "a.3"))],
        ),
        (
            [spec("a")],
            [spec("a", replicas=2)],
            [("a", "add", ("replicas",), ("a.1", "a.2")), ("a", "remove", ("replicas",), ("a",))],
        ),
        (
            [spec("a", replicas=2, args={"x": 1})],
            [spec("a", replicas=3, args={"x": 2})],
            [
                ("a", "scale", ("2 → 3",), ("a.3",)),
                ("a", "restart", ("args.x",), ("a.1", "a.2")),
            ],
        ),
        (
            [spec("a"), spec("b")],
            [spec("a", on_exit="stop"), spec("b", command=("walk",))],
            [("a", "update", ("on_exit",), ("a",)), ("b", "restart", ("command",), ("b",))],
        ),
        (
            [spec("a")],
            [spec("a", command=("walk",), on_exit="stop")],
            [("a", "restart", ("command", "on_exit"), ("a",))],
        ),
    ],
    ids=["add", "replace", "up", "down", "numbered", "both", "live", "mixed"],
)
def test_plan_names_what_and_why(old: Any, new: Any, expected: Any):
    """One change a kind and worker, what is removed last."""
    plan = make_plan(present(*old), wanted(*new))
    assert [Change(*one) for one in expected] == list(plan.changes)


def test_only_the_replica_that_differs_is_restarted():
    """One replica was restarted with the edited file before: the plan is about the others."""
    old, new = spec("a", replicas=3, env={"X": "1"}), spec("a", replicas=3, env={"X": "2"})
    here = present(old)
    here[1] = Present(new.instances()[1])
    (change,) = make_plan(here, wanted(new)).changes
    assert ("a.1", "a.3") == change.instances
    assert ("env.X",) == change.why


@pytest.mark.parametrize("down", ["failed", "stopped"])
def test_what_is_down_is_started(down: str):
    """Of a worker that does not run the plan says why, and what else differs."""
    here = present(spec("a"), down=down)
    (same,) = make_plan(here, wanted(spec("a"))).changes
    (other,) = make_plan(here, wanted(spec("a", env={"X": ""}))).changes
    assert ("start", (down,)) == (same.action, same.why)
    assert ("start", (down, "env.X")) == (other.action, other.why)


def test_what_is_not_chosen_is_told_from_what_is_gone():
    """A worker that the file still has is not said to be missing in it."""
    plan = make_plan(present(spec("a"), spec("b")), [], declared=["a"])
    assert [("not chosen any more",), ("not in the file any more",)] == [
        one.why for one in plan.changes
    ]
    assert ("a", "b") == plan.instances


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"args": {"x": 1, "y": 2}}, {"args": {"x": 1, "z": 2}}, ("args.y", "args.z")),
        ({"args": {"x": 1}}, {"args": {"x": True}}, ("args.x",)),
        ({"args": {"x": 1}}, {"args": {"x": 1.0}}, ("args.x",)),
        ({"args": {"x": [1, 2]}}, {"args": {"x": [1, 2]}}, ()),
        ({"args": {"x": None}}, {"args": {}}, ("args.x",)),
        ({"env": {"A": "1", "B": "2"}}, {"env": {"B": "2", "A": "1"}}, ()),
        ({"env": {"PBUS_REPLICA": "1"}}, {"env": {"PBUS_REPLICA": "2"}}, ()),
        ({"replicas": 1}, {"replicas": 5}, ()),
        ({}, {"depends_on": (Dependency(worker="b"),)}, ("depends_on",)),
        ({}, {"limits": LimitsSpec(age_s=3.0)}, ("limits",)),
        ({}, {"restart": RestartSpec(max_exits=9)}, ("restart",)),
        ({}, {"health": HealthSpec(probe=ExecProbe(("true",)))}, ("health",)),
        ({}, {"working_dir": Path("/y"), "active": False}, ("working_dir", "active")),
    ],
)
def test_changed_keys(old: Any, new: Any, expected: tuple[str, ...]):
    """Keys as the file has them, single ones of args and env; never a value."""
    found = changed_keys(spec(**old), spec(**new))
    assert set(expected) == set(found)
    assert len(expected) == len(found)


def topology(**keys: Any) -> Topology:
    """A topology whose bus is at a URL."""
    bus = BusSettings(url="redis://:secret@a/0", channel="c")
    values: dict[str, Any] = {"name": "t", "file": Path("/t"), "folder": Path("/"), "bus": bus}
    return Topology(**{**values, "workers": {}, **keys})


def test_what_cannot_change_is_named_without_values():
    """Of the bus each key by itself; the password in a URL stays in it."""
    bus = topology().bus
    changed = replace(
        bus, url="redis://:other@a/0", delivery_options=DeliveryOptions(max_attempts=2)
    )
    assert () == fixed_keys(topology(), topology())
    assert ("bus.url", "bus.max_attempts", "loop") == fixed_keys(
        topology(), topology(bus=changed, loop="uvloop")
    )
    assert ("preload",) == fixed_keys(topology(), topology(preload=("numpy",)))


def test_policies_are_taken_without_a_new_process():
    """What supervises a process is exchanged under it; what the process was made from stays."""
    (old,) = spec("a", args={"x": 1}).instances()
    new = spec("a", args={"x": 2}, on_exit="fail", limits=LimitsSpec(age_s=3.0))
    now = with_live_keys(old, new).spec
    assert ({"x": 1}, "fail", 3.0) == (now.args, now.on_exit, now.limits.age_s)
    assert changed_keys(now, new) == ("args.x",)


def test_instance_of_any_number():
    """A replica beyond the file's number is made like the others."""
    several = spec("a", replicas=2, env={"N": "n{replica}"})
    assert "n7" == several.instance("a.7").spec.env["N"]
    assert several.instance("a.2") == several.instances()[1]
    assert "a" == spec("a").instance("a").name
