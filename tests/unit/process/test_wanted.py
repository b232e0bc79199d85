"""What a request wants of a project: the edited file with a selection, or numbers of replicas."""

import stat
from pathlib import Path
from typing import Any

import pytest

from pbus.errors import ControlRefusedError, TopologyError
from pbus.process.supervisor.changes.applied import Applied, load
from pbus.process.supervisor.changes.wanted import (
    UpRequest,
    read_request,
    wanted_of_file,
    wanted_of_scale,
    write_request,
)
from pbus.settings import BusSettings
from pbus.topology.model import Topology, WorkerInstance, WorkerSpec
from pbus.topology.policy.policies import Dependency
from pbus.topology.selection import Selection
from support.waiting import run


def topology(*workers: str, **keys: dict[str, Any]) -> Topology:
    """A topology of programs with these names; keys by name."""
    specs = [
        WorkerSpec(
            name=name, working_dir=Path("/"), joins=False, command=("run",), **keys.get(name, {})
        )
        for name in workers
    ]
    bus, file = BusSettings(), Path("/t.yaml")
    return Topology(
        name="t", file=file, folder=Path("/"), bus=bus, workers={one.name: one for one in specs}
    )


def request(**selection: Any) -> UpRequest:
    """A request of these names and profiles."""
    chosen = {key: frozenset(names) for key, names in selection.items()}
    return UpRequest(files=("/t.yaml",), environ={"A": "1"}, selection=Selection(**chosen))


def names(instances: Any) -> list[str]:
    """The names of processes."""
    return [one.name for one in instances]


def test_request_is_for_this_user_alone(tmp_path: Path):
    """It holds the environment: none but its user can read it, and it survives the way."""
    given = UpRequest(
        files=("/t\udcff.yaml", "/prod.yaml"),
        environ={"TOKEN": "x"},
        selection=Selection(only=frozenset({"a"})),
        is_watching=True,
    )
    path = write_request(tmp_path, "0a-1", given)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert given == read_request(tmp_path, "0a-1")


@pytest.mark.parametrize("request_id", ["missing", "../../etc/passwd", "", "broken"])
def test_strange_requests_are_refused(tmp_path: Path, request_id: str):
    """What came over the bus names no file outside of the state folder."""
    (tmp_path / "up-broken.json").write_text("{")
    with pytest.raises(ControlRefusedError, match="cannot be read"):
        read_request(tmp_path, request_id)


def test_profiles_stay_chosen():
    """Who forgets --profile does not lose its workers; one that the file lost is forgotten."""
    keys = {"dev": {"profiles": frozenset({"dev"})}, "ops": {"profiles": frozenset({"ops"})}}
    edited = topology("a", "dev", "ops", **keys)
    chosen = Selection(profiles=frozenset({"dev", "old"}))
    before = Applied(topology=edited, selection=chosen, scaled={"a": 3}, is_watching=True)

    wanted = wanted_of_file(request(), edited, before, edited.instances())

    assert ["a", "dev"] == names(wanted.instances)
    assert {"dev"} == wanted.applied.selection.profiles
    assert ({}, True, {"A": "1"}) == (
        wanted.applied.scaled, wanted.applied.is_watching, wanted.applied.environ,
    )  # fmt: skip
    more = wanted_of_file(request(profiles=["ops"]), edited, before, ())
    assert ["a", "dev", "ops"] == names(more.instances)


def test_named_workers_alone_are_meant():
    """--only leaves all others as they run, also those that the file has lost or changed."""
    old = topology("a", "b", "gone", "many", many={"replicas": 3})
    edited = topology("a", "b", "c", "many", many={"replicas": 2}, a={"on_exit": "stop"})
    before = Applied(topology=old)
    here = old.instances()

    one = wanted_of_file(request(only=["b"]), edited, before, here)
    group = wanted_of_file(request(only=["many"]), edited, before, here)
    single = wanted_of_file(request(only=["many.1"]), edited, before, here)

    assert {"a", "b", "gone", "many.1", "many.2", "many.3"} == set(names(one.instances))
    assert old.workers["a"] == next(i for i in one.instances if i.name == "a").spec
    assert {"a", "b", "gone", "many.1", "many.2"} == set(names(group.instances))
    assert set(names(here)) == set(names(single.instances))
    assert Selection() == one.applied.selection  # the whole file stays chosen


def test_named_workers_bring_what_they_need():
    """The dependencies of a named worker are meant, too, as at a start."""
    edited = topology("a", "db", "x", a={"depends_on": (Dependency(worker="db"),)})
    before = Applied(topology=edited, selection=Selection(only=frozenset({"x"})))
    wanted = wanted_of_file(request(only=["a"]), edited, before, before.instances())
    assert {"a", "db", "x"} == set(names(wanted.instances))
    assert {"a", "x"} == wanted.applied.selection.only


def test_unknown_names_are_errors():
    """A name that the edited file does not have."""
    edited = topology("a")
    with pytest.raises(TopologyError, match="no worker is named 'b'"):
        wanted_of_file(request(only=["b"]), edited, Applied(topology=edited), ())


def test_scaled_replicas_are_like_the_others():
    """Those that stay keep what they were started with; the number holds for later questions."""
    before = Applied(topology=topology("a", "b", a={"replicas": 2, "env": {"N": "{replica}"}}))
    here = before.instances()
    changed = [WorkerInstance(name=one.name, spec=one.spec) for one in here]

    more = wanted_of_scale({"a": 4}, before, here)
    fewer = wanted_of_scale({"a": 1}, before, here)

    assert {"b", "a.1", "a.2", "a.3", "a.4"} == set(names(more.instances))
    assert "3" == next(one for one in more.instances if one.name == "a.3").spec.env["N"]
    assert {"b", "a.1"} == set(names(fewer.instances))
    assert changed == here
    assert ["a.1", "a.2", "a.3", "a.4", "b"] == names(more.applied.instances())
    assert not more.is_of_file


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        ({"x": 2}, "no worker is named 'x'"),
        ({"b": 2}, "b has no replicas"),
        ({"a": 0}, "a=0: expected a number from 1 to 1000"),
        ({"a": -1}, "a=-1"),
        ({"a": 1001}, "a=1001"),
        ({"a": 2, "x": 2}, "no worker is named 'x'"),
    ],
)
def test_impossible_numbers_are_refused(scale: dict[str, int], text: str):
    """All are checked before anything is done."""
    before = Applied(topology=topology("a", "b", a={"replicas": 2}))
    with pytest.raises(ControlRefusedError, match=text):
        wanted_of_scale(scale, before, before.instances())


def test_replicas_of_a_process_are_not_scaled_alone():
    """Workers of one process have as many replicas as each other: the file says how many."""
    shared = {"replicas": 2, "process": "p"}
    before = Applied(topology=topology("a", "b", a=shared, b=shared))
    assert [("a.1", "b.1"), ("a.2", "b.2")] == [one.names for one in before.instances()]
    with pytest.raises(ControlRefusedError, match="b shares the process p with others") as caught:
        wanted_of_scale({"b": 3}, before, before.instances())
    assert "change `replicas` of all of them in /t.yaml" in str(caught.value.hint)


def test_file_wants_whole_processes():
    """What the edited file wants are processes, of which a request chooses whole ones."""
    shared = {"process": "p"}
    edited = topology("a", "b", "c", a=shared, c=shared)
    before = Applied(topology=topology("a", "b"))
    wanted = wanted_of_file(request(), edited, before, before.instances())
    assert [("a", "c"), ("b",)] == [one.names for one in wanted.instances]
    wanted = wanted_of_file(request(only=frozenset({"c"})), edited, before, before.instances())
    assert [("a", "c"), ("b",)] == [one.names for one in wanted.instances]


def test_file_is_read_with_the_given_variables(tmp_path: Path):
    """${VAR} has the value of the one who asks, not that of the supervisor."""
    file = tmp_path / "topology.yaml"
    file.write_text("workers: {a: {command: [run, '${SPEED}']}}")
    found = run(load([file], {"SPEED": "fast"}))
    assert ("run", "fast") == found.workers["a"].command
