"""`process: NAME`: what the workers of one process have in common, and what they may not have."""

from pathlib import Path

import pytest

from pbus.topology.model import Topology, WorkerInstance
from pbus.topology.policy.policies import LimitsSpec, LogProbe, RestartSpec
from pbus.topology.policy.shared_process import (
    process_instance,
    process_key,
    process_names,
    processes_of,
)
from pbus.topology.selection import Selection, select
from support.topologies import load_text, problems_of

SHOP = """
env: {LEVEL: info}
workers:
  mic: {worker: 'w:Mic', process: media, args: {n: 1}, depends_on: [db, stt], env: {MIC: 1}, watch: [a]}
  db: {command: [db]}
  stt: {worker: 'v:Stt', process: media, active: false, restart: always, env: {LEVEL: debug}}
  tts:
    worker: w:Tts
    process: media
    limits: {memory: 500MB}
    depends_on: {db: ready, clock: started, mic: active}
    watch: [b, a]
  clock: {command: [clock], profiles: [debug]}
  alone: {worker: 'w:Alone', process: only}
"""


def processes(topology: Topology, selection: Selection | None = None) -> dict[str, WorkerInstance]:
    """The processes by name."""
    found = select(topology, selection or Selection())
    return {one.name: one for one in processes_of(found)}


def test_workers_of_one_process(tmp_path: Path):
    """One instance for all of them, with what any of them says of the process."""
    found = processes(load_text(tmp_path, SHOP))
    media = found["mic"]

    assert ["mic", "db", "clock", "alone"] == list(found)
    assert ("mic", "stt", "tts") == media.names
    assert (RestartSpec(policy="always"), LimitsSpec(memory_bytes=500 << 20)) == (
        media.spec.restart,
        media.spec.limits,
    )
    assert {"LEVEL": "debug", "MIC": "1"} == media.spec.env
    assert (tmp_path / "a", tmp_path / "b") == media.spec.watch
    assert ["db", "clock"] == [one.worker for one in media.spec.depends_on]


def test_each_worker_keeps_its_own(tmp_path: Path):
    """Class, arguments and activation are its own, and the others that it waits for."""
    mic, stt, tts = processes(load_text(tmp_path, SHOP))["mic"].spec.members

    assert [("w:Mic", {"n": 1}), ("v:Stt", {}), ("w:Tts", {})] == [
        (one.worker, one.args) for one in (mic, stt, tts)
    ]
    assert [(True, ("stt",)), (False, ()), (True, ("mic",))] == [
        (one.active, one.after) for one in (mic, stt, tts)
    ]
    assert [tmp_path / "topology.yaml"] * 3 == [one.file for one in (mic, stt, tts)]


def test_one_worker_is_a_process_as_any_other(tmp_path: Path):
    """A name that only one worker has changes nothing."""
    alone = processes(load_text(tmp_path, SHOP))["alone"]

    assert ((), ("alone",)) == (alone.spec.members, alone.names)


def test_replicas_share_by_number(tmp_path: Path):
    """Each replica of the process has one of each worker, under its number."""
    topology = load_text(
        tmp_path,
        "workers:\n"
        "  a: {worker: 'w:A', process: p, replicas: 2, args: {n: '{replica}'}, depends_on: [b]}\n"
        "  b: {worker: 'w:B', process: p, replicas: 2, env: {N: '{replica}'}}\n",
    )
    found = processes(topology)

    assert [("a.1", "b.1"), ("a.2", "b.2")] == [one.names for one in found.values()]
    second = found["a.2"].spec
    assert ({"n": "2"}, {"N": "2", "PBUS_REPLICA": "2"}) == (second.args, second.env)
    assert [("a.2", "a", ("b.2",)), ("b.2", "b", ())] == [
        (one.name, one.group, one.after) for one in second.members
    ]
    assert ("a.7", "b.7") == process_instance(topology, "b", "b.7").names
    assert {"a.1": "a.1", "a.2": "a.2", "b.1": "a.1", "b.2": "a.2"} == process_names(topology)


def test_process_of_a_single_worker(tmp_path: Path):
    """A worker without `process` is the process itself."""
    topology = load_text(tmp_path, SHOP)

    assert topology.workers["db"].instances()[0] == process_instance(topology, "db", "db")
    assert "mic" == process_instance(topology, "tts", "tts").name


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(only=frozenset({"stt"})), ["mic", "db", "stt", "tts", "clock"]),
        (Selection(only=frozenset({"stt"}), with_dependencies=False), ["mic", "stt", "tts"]),
        (Selection(only=frozenset({"db"})), ["db"]),
        (Selection(), ["mic", "db", "stt", "tts", "clock", "alone"]),
    ],
)
def test_workers_are_chosen_together(tmp_path: Path, selection: Selection, expected: list[str]):
    """One of them brings the others, and what those need."""
    assert expected == [one.name for one in select(load_text(tmp_path, SHOP), selection)]


def test_profile_of_one_chooses_all(tmp_path: Path):
    """A process runs whole or not at all."""
    text = (
        "workers:\n  a: {worker: 'w:A', process: p, profiles: [x]}\n"
        "  b: {worker: 'w:B', process: p, profiles: [y]}\n  c: {command: [c]}\n"
    )
    topology = load_text(tmp_path, text)

    assert ["c"] == [one.name for one in select(topology)]
    chosen = select(topology, Selection(profiles=frozenset({"y"})))
    assert ["a", "b", "c"] == [one.name for one in chosen]


def test_keys_of_processes_and_workers_differ(tmp_path: Path):
    """A worker with the name of a process is no part of it."""
    text = "workers:\n  a: {worker: 'w:A', process: b}\n  b: {worker: 'w:B'}\n  c: {worker: 'w:C', process: b}\n"
    instances = load_text(tmp_path, text).instances()

    assert 2 == len({process_key(one) for one in instances})
    assert [("a", "c"), ("b",)] == [one.names for one in processes_of(instances)]


PAIR = "workers:\n  a: {worker: 'w:A', process: p%s}\n  b: {worker: 'w:B', process: p%s}\n"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (", restart: always", ", restart: never", "b.restart: it differs from a (line 2)"),
        (", limits: {memory: 1GB}", ", limits: {age: 1h}", "b.limits: it differs from a (line 2)"),
        (", stop: {grace: 1s}", ", stop: {grace: 2s}", "b.stop: it differs from a (line 2)"),
        (", on_exit: stop", ", on_exit: fail", "b.on_exit: it differs from a (line 2)"),
        (", working_dir: x", ", working_dir: y", "b.working_dir: it differs from a (line 2)"),
        (", ready: bus", ", ready: {log: x}", "b.ready: it differs from a (line 2)"),
        (", replicas: 2", "", "b.replicas: it differs from a (line 2)"),
        (", replicas: 2", ", replicas: 3", "b.replicas: it differs from a (line 2)"),
        (
            ", env: {A: 1, B: 2}",
            ", env: {B: 3}",
            "b.env: it differs in the value of B from a (line 2)",
        ),
        (", env: {A: 1}", ", env_file: env", "b.env: it differs in the value of A from a (line 2)"),
        (
            ", success_exit_codes: [1]",
            ", success_exit_codes: [2]",
            "b.success_exit_codes: it differs",
        ),
        (", joins: false", "", "a.joins: workers of one process join the bus"),
        (
            ", depends_on: {b: completed}",
            "",
            "a.depends_on.b: b is in the same process, so it cannot",
        ),
        (
            ", depends_on: {b: healthy}",
            "",
            "a.depends_on.b: b is in the same process, so it cannot",
        ),
    ],
)
def test_what_differs_is_told(tmp_path: Path, one: str, other: str, expected: str):
    """What belongs to the process is said once, or alike; both places are named."""
    for name in "xy":
        (tmp_path / name).mkdir()
    (tmp_path / "env").write_text("A=other\n")
    (found,) = problems_of(tmp_path, PAIR % (one, other))

    assert f"workers.{expected}" in found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (", restart: always", ", restart: {policy: always}"),
        (", limits: {memory: 1GB}", ", limits: {memory: 1024MB}"),
        (", env: {A: 1}", ", env: {A: '1', B: 2}"),
        (", working_dir: x", ", working_dir: ./x"),
        (", profiles: [x]", ", profiles: [y]"),
        (", args: {x: 1}, active: false", ", args: {x: 2}"),
        (", depends_on: {b: active}", ""),
    ],
)
def test_what_is_alike_is_right(tmp_path: Path, one: str, other: str):
    """However it is written; and what is each worker's own."""
    (tmp_path / "x").mkdir()
    assert [] == problems_of(tmp_path, PAIR % (one, other))


def test_programs_have_their_own_process(tmp_path: Path):
    """`process` is for classes."""
    text = "workers:\n  a: {command: [x], process: p}\n  b: {worker: 'w:B', process: p}\n"

    assert [
        "topology.yaml:2: workers.a.command: a program is a process of its own: remove `process`"
    ] == (problems_of(tmp_path, text))


def test_processes_that_wait_for_each_other(tmp_path: Path):
    """What no worker does alone: each process waits for a worker of the other."""
    text = (
        "workers:\n  a: {worker: 'w:A', process: p, depends_on: [x]}\n  b: {worker: 'w:B', process: p}\n"
        "  x: {worker: 'w:X', process: q}\n  y: {worker: 'w:Y', process: q, depends_on: [b]}\n"
        "  c: {worker: 'w:C', process: r, depends_on: [mid]}\n  d: {worker: 'w:D', process: r}\n"
        "  mid: {command: [mid], depends_on: [d]}\n"
    )
    wait = "these processes wait for each other:"

    assert [
        f"topology.yaml:2: workers.a.process: {wait} process p → process q → process p",
        f"topology.yaml:6: workers.c.process: {wait} process r → mid → process r",
    ] == problems_of(tmp_path, text)


def test_folders_of_several_files_must_agree(tmp_path: Path):
    """Workers of one process run in one folder, also where their files say nothing of it."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text("workers: {b: {worker: 'w:B', process: p}}\n")
    text = "include: sub/b.yaml\nworkers:\n  a: {worker: 'w:A', process: p}\n"
    (found,) = problems_of(tmp_path, text)
    assert "workers.a.working_dir: it differs from b (sub/b.yaml:1), and both run in" in found

    topology = load_text(tmp_path, text.replace("process: p}", "process: p, working_dir: .}"))
    (process,) = processes_of(topology.instances())
    assert (tmp_path, ["b", "a"]) == (process.spec.working_dir, list(process.names))
    assert [tmp_path / "sub" / "b.yaml", tmp_path / "topology.yaml"] == [
        one.file for one in process.spec.members
    ]


def test_a_log_probe_is_the_processes(tmp_path: Path):
    """The probe of one is that of all."""
    topology = load_text(tmp_path, PAIR % (", ready: {log: up}", ""))

    for one in topology.workers.values():
        assert one.ready is not None
        assert LogProbe("up") == one.ready.probe
