"""Keys that say how a process is treated: short and long forms, other tools' words, problems."""

import itertools
import random
import re

import pytest

from pbus.errors import TopologyError
from pbus.topology import describe
from pbus.topology.parsing.durations import parse_duration
from pbus.topology.policy.dependencies import find_cycles
from pbus.topology.policy.policies import (
    BusProbe,
    Dependency,
    ExecProbe,
    HealthSpec,
    HttpProbe,
    LimitsSpec,
    LineProbe,
    LogProbe,
    NotifyProbe,
    ReadySpec,
    RestartSpec,
    StopSpec,
    TcpProbe,
)
from pbus.topology.selection import Selection, select
from support.topologies import load_text, problems_of


def of_worker(tmp_path, *lines: str, others: str = ""):
    """Worker `a` with these keys."""
    text = (
        "workers:\n  a:\n    command: [run]\n" + "".join(f"    {line}\n" for line in lines) + others
    )
    return load_text(tmp_path, text).workers["a"]


def problem(tmp_path, *lines: str, others: str = "") -> list[str]:
    """What is wrong with worker `a` with these keys; the first is in line 4."""
    return problems_of(
        tmp_path,
        "workers:\n  a:\n    command: [run]\n"
        + "".join(f"    {line}\n" for line in lines)
        + others,
    )


DB = "  db: {command: [db]}\n  migrate: {command: [migrate]}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("depends_on: [db, migrate]", (Dependency(worker="db"), Dependency(worker="migrate"))),
        ("depends_on: {db: healthy}", (Dependency(worker="db", condition="healthy"),)),
        ("depends_on: {db: }", (Dependency(worker="db"),)),
        (
            "depends_on: {db: {condition: service_healthy, required: false, restart: true}}",
            (Dependency(worker="db", condition="healthy", required=False, restart=True),),
        ),
        (
            "depends_on: {migrate: {condition: service_completed_successfully}}",
            (Dependency(worker="migrate", condition="completed"),),
        ),
        (
            "depends_on: {db: {condition: service_started}}",
            (Dependency(worker="db", condition="started"),),
        ),
        (
            "depends_on: {db: process_healthy, migrate: process_completed_successfully}",
            (
                Dependency(worker="db", condition="healthy"),
                Dependency(worker="migrate", condition="completed"),
            ),
        ),
        ("depends_on: []", ()),
    ],
)
def test_dependencies(tmp_path, line, expected):
    """A list means ready; compose's spellings are understood."""
    assert of_worker(tmp_path, line, others=DB).depends_on == expected


def reaches(graph: dict[str, list[str]], start: str, goal: str) -> bool:
    """Whether a walk of at least one step leads from a name to another."""
    seen: set[str] = set()
    left = list(graph.get(start, ()))
    while left:
        name = left.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            left += graph.get(name, ())
    return False


@pytest.mark.parametrize("seed", range(40))
def test_each_cycle_is_found(seed):
    """What is found are cycles; without their last links there is none."""
    chance = random.Random(seed)
    names = "abcdefg"[: chance.randint(1, 7)]
    links = [(one, other) for one in names for other in names if chance.random() < 0.25]
    graph = {one: [other for start, other in links if start == one] for one in names}
    found = find_cycles(graph)

    for cycle in found:
        assert cycle[0] == cycle[-1]
        assert all(other in graph[one] for one, other in itertools.pairwise(cycle))
    cut = {(cycle[-2], cycle[-1]) for cycle in found}
    left = {one: [other for other in graph[one] if (one, other) not in cut] for one in names}
    assert not [one for one in names if reaches(left, one, one)]
    assert bool(found) == any(reaches(graph, one, one) for one in names)


def test_cycles_found_are_bounded():
    """Everyone waits for everyone: some of the cycles are told, in little time."""
    names = [str(number) for number in range(300)]

    assert 100 == len(find_cycles(dict.fromkeys(names, names)))


@pytest.mark.parametrize(
    ("lines", "others", "expected"),
    [
        (["depends_on: [migrat]"], DB, ["no worker is named 'migrat' (did you mean `migrate`?)"]),
        (["depends_on: [a]"], "", ["these workers wait for each other: a → a"]),
        (
            ["depends_on: [b]"],
            "  b: {command: [b], depends_on: [c]}\n  c: {command: [c], depends_on: {a: started}}\n",
            ["these workers wait for each other: a → b → c → a"],
        ),
        (
            ["depends_on: [b, c]"],
            "".join(
                f"  {name}: {{command: [x], depends_on: [{others}]}}\n"
                for name, others in (("b", "a, d"), ("c", "c"), ("d", "e"), ("e", "d"))
            ),
            [
                "workers.a.depends_on: these workers wait for each other: a → b → a",
                "workers.c.depends_on: these workers wait for each other: c → c",
                "workers.d.depends_on: these workers wait for each other: d → e → d",
            ],
        ),
        (
            ["depends_on: {b: completed}"],
            "  b: {command: [b], restart: always}\n",
            ["b never completes: with `restart: always` it is started again"],
        ),
        (["depends_on: {db: redy}"], DB, ["expected active, completed, healthy, ready or started"]),
        (["depends_on: db"], DB, ["expected a list of workers, or a map of workers to conditions"]),
        (["depends_on: {db: {when: ready}}"], DB, ["unknown key"]),
    ],
)
def test_wrong_dependencies(tmp_path, lines, others, expected):
    """Unknown names and cycles are told where they stand."""
    found = problem(tmp_path, *lines, others=others)
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert part in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ready: {log: 'listening on [0-9]+'}", ReadySpec(probe=LogProbe("listening on [0-9]+"))),
        (
            "ready: {http: 'http://127.0.0.1:8000/health', timeout: 1m30s}",
            ReadySpec(probe=HttpProbe("http://127.0.0.1:8000/health"), timeout_s=90.0),
        ),
        ("ready: {tcp: 'db.example:5432'}", ReadySpec(probe=TcpProbe("db.example", 5432))),
        ("ready: {tcp: '[::1]:5432'}", ReadySpec(probe=TcpProbe("::1", 5432))),
        ("ready: {tcp: 5432}", ReadySpec(probe=TcpProbe("127.0.0.1", 5432))),
        ("ready: {tcp: '5432'}", ReadySpec(probe=TcpProbe("127.0.0.1", 5432))),
        ("ready: {exec: [test, -e, x]}", ReadySpec(probe=ExecProbe(("test", "-e", "x")))),
        ("ready: notify", ReadySpec(probe=NotifyProbe())),
        ("ready: {notify: true, timeout: 500ms}", ReadySpec(probe=NotifyProbe(), timeout_s=0.5)),
    ],
)
def test_ready(tmp_path, line, expected):
    """Each kind of probe, with and without a time limit."""
    assert of_worker(tmp_path, line).ready == expected


def test_stdio(tmp_path):
    """A program with it is a worker on the bus, which may be ready by a line that it prints."""
    spec = of_worker(tmp_path, "stdio: jsonl", "ready: line", "limits: {jobs: 5}", "active: false")
    assert ("jsonl", True, ReadySpec(probe=LineProbe())) == (spec.stdio, spec.joins, spec.ready)
    timed = of_worker(tmp_path, "stdio: jsonl", "ready: {line: true, timeout: 5s}").ready
    assert timed == ReadySpec(probe=LineProbe(), timeout_s=5.0)
    plain = of_worker(tmp_path, "stdio: jsonl", "health: bus")
    assert (None, HealthSpec(probe=BusProbe())) == (plain.ready, plain.health)
    text = "workers:\n  a: {command: [run], stdio: jsonl, ready: line}\n"
    (shown,) = describe(load_text(tmp_path, text))["workers"]
    assert ("jsonl", {"line": True, "timeout": 60.0}) == (shown["stdio"], shown["ready"])
    assert of_worker(tmp_path).stdio is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("joins: false", "a.joins: a program with `stdio` is a worker: leave it out"),
        ("pipecat: true", "a.stdio: a program with `pipecat: true` is on the bus by itself"),
        ("args: {x: 1}", "a.args: `args` go to a worker class"),
    ],
)
def test_stdio_excludes(tmp_path, line, expected):
    """What a program with `stdio` cannot have."""
    assert expected in problem(tmp_path, "stdio: jsonl", line)[0]
    class_text = "workers:\n  a: {worker: 'm:A', stdio: jsonl}\n"
    (found,) = problems_of(tmp_path, class_text)
    assert "a.stdio: a worker class is on the bus by itself" in found


def test_health(tmp_path):
    """All keys of a health check; a worker on the bus is asked there."""
    line = (
        "health: {bus: true, every: 2s, timeout: 1, failures: 5, start_period: 1m, restart: false}"
    )
    expected = HealthSpec(
        probe=BusProbe(), every_s=2.0, timeout_s=1.0, failures=5, start_period_s=60.0, restart=False
    )
    assert of_worker(tmp_path, "joins: true", line).health == expected
    assert of_worker(tmp_path, "joins: true", "health: bus").health == HealthSpec(probe=BusProbe())


@pytest.mark.parametrize(
    "line",
    [
        "health: {bus: true, max_silence: 10s, max_handler: 1m30s}",
        "health: {max_silence: 10, max_handler: '90'}",
        "health: {bus: {max_silence: 10s, max_handler: 90s}}",
        "health: {bus: {max_silence: 10s}, max_handler: 90s}",
    ],
)
def test_limits_of_the_bus(tmp_path, line):
    """They mean the bus by themselves, and may stand below it."""
    spec = of_worker(tmp_path, "joins: true", line).health
    assert spec == HealthSpec(probe=BusProbe(max_silence_s=10.0, max_handler_s=90.0))
    shown = describe(load_text(tmp_path, f"workers:\n  a: {{worker: 'm:A', {line}}}\n"))
    health = shown["workers"][0]["health"]
    assert (10.0, 90.0, True) == (health["max_silence"], health["max_handler"], health["bus"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("health: {max_silence: 2s}", "health.max_silence: expected a duration of at least 3s"),
        ("health: {max_handler: 0}", "health.max_handler: expected a duration of at least 1s"),
        ("health: {bus: {max_answer: 5s}}", "health.max_answer: unknown key"),
        ("health: {bus: [1]}", "health.bus: expected true or false"),
        ("health: {bus: false, max_handler: 5s}", "health: expected one of"),
    ],
)
def test_wrong_limits_of_the_bus(tmp_path, line, expected):
    """Too short ones would end workers that do well."""
    assert expected in problem(tmp_path, "joins: true", line)[0]


def test_watch(tmp_path):
    """Paths beside the topology; none at all is not the same as an empty list."""
    assert of_worker(tmp_path, "watch: [src, ../shared/a.txt]").watch == (
        tmp_path / "src",
        tmp_path.parent / "shared" / "a.txt",
    )
    assert of_worker(tmp_path, "watch: src").watch == (tmp_path / "src",)
    assert of_worker(tmp_path, "watch: []").watch == ()
    assert of_worker(tmp_path).watch is None


def test_limits(tmp_path):
    """Bytes and seconds, however they are written."""
    line = "limits: {memory: 500MB, age: 1h30m}"
    assert of_worker(tmp_path, line).limits == LimitsSpec(memory_bytes=500 << 20, age_s=5400.0)
    assert of_worker(tmp_path, "limits: {age: 90}").limits == LimitsSpec(age_s=90.0)
    assert of_worker(tmp_path, "joins: true", "limits: {jobs: 10000}").limits.jobs == 10_000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ready: {}", "ready: expected one of log, http, tcp, exec, notify, line or bus, got none"),
        ("ready: {log: x, tcp: '1'}", "got log and tcp"),
        ("ready: {log: '('}", "ready.log: not a regular expression"),
        ("ready: {http: 'ftp://x/'}", "ready.http: expected a URL like"),
        ("ready: {http: 'http://[x/'}", "ready.http: expected a URL like"),
        ("ready: {tcp: 'x:99999'}", "ready.tcp: expected HOST:PORT"),
        ("ready: {tcp: 99999}", "ready.tcp: expected HOST:PORT"),
        ("ready: {tcp: [1]}", "ready.tcp: expected text, a number"),
        ("ready: {http: 80}", "ready.http: expected text"),
        ("ready: {exec: test -e go}", "ready.exec: expected a list of words"),
        ("ready: {tcp: x}", "ready.tcp: expected HOST:PORT"),
        ("ready: bus", "ready.bus: the program does not join the bus"),
        ("ready: {tcp: '1', timeout: 5x}", "ready.timeout: expected a duration like"),
        ("ready: {tcp: '1', timeout: -1}", "ready.timeout: expected a duration like"),
        ("health: {log: x}", "health.log: a line tells once"),
        ("health: {line: true}", "health.line: a line tells once"),
        ("ready: line", "ready.line: only a program with `stdio: jsonl` prints that line"),
        ("stdio: json", "stdio: expected jsonl"),
        ("health: {tcp: '1', failures: 0}", "expected a whole number from 1 to 1000"),
        ("health: {notify: false}", "got none"),
        ("restart: no", "got 'no' (did you mean `never`?)"),
        ("restart: 'no'", "got 'no' (did you mean `never`?)"),
        ("restart: false", "got false (did you mean `never`?)"),
        ("restart: unless-stopped", "got 'unless-stopped' (did you mean `always`?)"),
        ("restart: on-failure:3", "(did you mean `{policy: on-failure, max: 4}`?)"),
        ("restart: {policy: on_failure}", "(did you mean `on-failure`?)"),
        ("restart: exit_on_failure", "(did you mean `never` with `on_exit: fail`?)"),
        ("restart: unexpected", "(did you mean `on-failure`?)"),
        ("restart: on-failure:many", "(did you mean `on-failure`?)"),
        ("restart: elephant", "got 'elephant'"),
        ("restart: {policy: alwyas}", "(did you mean `always`?)"),
        ("restart: {backoff: {factor: 0.5}}", "expected a number from 1 to 100"),
        ("restart: {backoff: {jitter: two}}", "expected a number from 0"),
        ("limits: {memory: 5}", "limits.memory: expected a size from 1KB to 1TB"),
        ("limits: {age: 500ms}", "limits.age: expected a duration of at least 1s like 30m"),
        ("limits: {cpu: 1}", "limits.cpu: unknown key"),
        ("limits: {jobs: 5}", "limits.jobs: the program does not join the bus"),
        ("limits: {jobs: 0}", "limits.jobs: expected a whole number from 1 to 1"),
        ("health: {max_handler: 5s}", "health.bus: the program does not join the bus"),
        ("health: {bus: {max_silence: 5s}}", "health.bus: the program does not join the bus"),
        ("health: {tcp: '1', max_handler: 5s}", "health.max_handler: only `bus` has this limit"),
        ("ready: {bus: {max_silence: 5s}}", "ready.bus: expected true or false"),
        ("stop: {signal: SIGFOO}", "stop.signal: this machine has no signal SIGFOO"),
        ("stop: {signal: 15}", "expected the name of a signal like SIGTERM or SIGINT"),
        ("on_exit: restart", "expected fail, ignore or stop"),
        ("success_exit_codes: [256]", "expected a whole number from 0 to 255"),
        ("environment: {A: b}", "unknown key (here: `env`)"),
        ("cwd: x", "unknown key (here: `working_dir`)"),
        ("scale: 2", "unknown key (here: `replicas`)"),
        ("class: m:A", "unknown key (here: `worker`)"),
        ("healthcheck: {}", "unknown key (here: `health`)"),
        ("mem_limit: 1GB", "unknown key (here: `limits: {memory: ...}`)"),
        ("develop: {}", "unknown key (here: `watch`)"),
        ("health: {tcp: '1', interval: 3s}", "unknown key (here: `every`)"),
        ("health: {tcp: '1', retries: 3}", "unknown key (here: `failures`)"),
        ("ready: {notify: true, initial_delay_seconds: 3}", "unknown key (known here: "),
        ("stop: {timeout: 3s}", "unknown key (here: `grace`)"),
        ("restart: {max_restarts: 3}", "unknown key (here: `max`)"),
        ("deploy: {}", "unknown key (here: `replicas, restart and limits`)"),
    ],
)
def test_problems(tmp_path, line, expected):
    """Each says what was expected, or what the key is called here."""
    (found,) = problem(tmp_path, line)
    assert found.startswith("topology.yaml:4: workers.a.")
    assert expected in found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("restart: always", RestartSpec(policy="always")),
        ("restart: {policy: never}", RestartSpec(policy="never")),
        (
            "restart: {backoff: {initial: 1s, factor: 1.5, max: 1m, jitter: 0.2}, max: 9, within: 2m}",
            RestartSpec(
                initial_s=1.0, factor=1.5, max_s=60.0, jitter=0.2, max_exits=9, within_s=120.0
            ),
        ),
        ("restart: {}", RestartSpec()),
    ],
)
def test_restart(tmp_path, line, expected):
    """A word, or a map of which every key may be left out."""
    assert of_worker(tmp_path, line).restart == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("stop: {signal: INT, grace: 10s}", StopSpec(signal="SIGINT", grace_s=10.0)),
        ("stop: {drain: false, command: [quit, 1]}", StopSpec(drain=False, command=("quit", "1"))),
        ("stop: ", StopSpec()),
    ],
)
def test_stop(tmp_path, line, expected):
    """How a process is ended."""
    assert of_worker(tmp_path, line).stop == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("30 s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
        ("", None),
        ("s", None),
        ("5 minutes", None),
        ("-5s", None),
        ("1e9s", None),
        ("999d", None),
        ("٣s", None),
    ],
)
def test_durations(text, expected):
    """Units add up; a number is seconds."""
    assert parse_duration(text) == expected


def test_own_keys_are_left_alone(tmp_path):
    """Keys that begin with x- may stand at every level, for anchors."""
    topology = load_text(
        tmp_path,
        "x-common: &common {restart: always}\n"
        "bus: {x-note: mine}\n"
        "workers:\n  a: {<<: *common, command: [run], x-owner: ann, stop: {x-why: slow}}\n",
    )
    assert topology.workers["a"].restart.policy == "always"


def test_variables_of_all_workers(tmp_path):
    """Nearer ones win: files before env, the project's before the worker's."""
    for name, text in (("one", "A=1\nB=1\nC=1\n"), ("two", "B=2\n"), ("own", "C=own\nD=own\n")):
        (tmp_path / name).write_text(text)
    topology = load_text(
        tmp_path,
        "env_file: [one, two]\nenv: {E: all, F: all}\n"
        "workers:\n  a: {command: [x], env_file: own, env: {F: mine}}\n  b: {command: [x]}\n",
    )
    a, b = (worker.env for worker in topology.workers.values())
    assert a == {"A": "1", "B": "2", "C": "own", "D": "own", "E": "all", "F": "mine"}
    assert b == {"A": "1", "B": "2", "C": "1", "E": "all", "F": "all"}


def test_dot_env_stands_in_for_the_environment(tmp_path):
    """It is read for the file's variables alone, and the environment wins."""
    (tmp_path / ".env").write_text("NAME=from-file\nHOME=/nowhere\n")
    text = "workers:\n  a: {command: ['${NAME}', '${HOME}']}\n"
    worker = load_text(tmp_path, text, HOME="/home/ann").workers["a"]
    assert (worker.command, worker.env) == (("from-file", "/home/ann"), {})


def test_dot_env_that_is_no_file_is_left_alone(tmp_path):
    """Virtual environments are called so, too."""
    (tmp_path / ".env").mkdir()
    assert load_text(tmp_path, "workers:\n  a: {command: [x]}\n").workers


def test_wrong_env_files_are_told(tmp_path):
    """A missing file and a wrong line, each once, where it is named."""
    (tmp_path / "bad").write_text("A=1\n=2\n")
    text = "env_file: [bad, none]\nworkers:\n  a: {command: [x], env_file: [bad]}\n"
    missing, wrong = problems_of(tmp_path, text)
    assert missing.startswith("topology.yaml:1: env_file: the environment file cannot be read")
    assert wrong.startswith("bad:2: ")


def test_replicas_know_their_number(tmp_path):
    """{replica} stands for it in command, args and env; a plain worker keeps the text."""
    topology = load_text(
        tmp_path,
        "workers:\n"
        "  a: {command: [run, '--port=80{replica}'], env: {OUT: 'out-{replica}'}, replicas: 2}\n"
        "  b: {worker: 'm:B', args: {deep: [{n: '{replica}'}, 1]}, replicas: 1}\n"
        "  c: {command: [awk, '{replica}']}\n",
    )
    first, second, b, c = (one.spec for one in topology.instances())
    assert (first.command, second.command) == (("run", "--port=801"), ("run", "--port=802"))
    assert second.env == {"OUT": "out-2", "PBUS_REPLICA": "2"}
    assert b.args == {"deep": [{"n": "1"}, 1]}
    assert (c.command, c.env) == (("awk", "{replica}"), {})


CHOICE = """
workers:
  db: {command: [db]}
  api: {command: [api], depends_on: [db], replicas: 2}
  shell: {command: [shell], profiles: [debug], depends_on: [api]}
  trace: {command: [trace], profiles: [debug, trace]}
"""


@pytest.mark.parametrize(
    ("only", "profiles", "with_dependencies", "expected"),
    [
        ([], [], True, "db api.1 api.2"),
        ([], ["trace"], True, "db api.1 api.2 trace"),
        ([], ["debug"], True, "db api.1 api.2 shell trace"),
        (["shell"], [], True, "db api.1 api.2 shell"),
        (["shell"], [], False, "shell"),
        (["api.2"], [], True, "db api.2"),
        (["api"], [], False, "api.1 api.2"),
        (["api.1", "shell"], [], True, "db api.1 shell"),
    ],
)
def test_selection(tmp_path, only, profiles, with_dependencies, expected):
    """By name or by profile, with what is needed."""
    topology = load_text(tmp_path, CHOICE)
    chosen = select(
        topology,
        Selection(
            only=frozenset(only),
            profiles=frozenset(profiles),
            with_dependencies=with_dependencies,
        ),
    )
    assert " ".join(one.name for one in chosen) == expected


@pytest.mark.parametrize(
    ("only", "profiles", "expected"),
    [
        (["apy"], [], "no worker is named 'apy' (did you mean `api`?)"),
        (["api.3"], [], "no worker is named 'api.3'"),
        ([], ["debgu"], "no worker has the profile 'debgu' (did you mean `debug`?)"),
    ],
)
def test_wrong_selection(tmp_path, only, profiles, expected):
    """A name that is not there is an error with the nearest one."""
    with pytest.raises(TopologyError, match=re.escape(expected)):
        select(
            load_text(tmp_path, CHOICE),
            Selection(only=frozenset(only), profiles=frozenset(profiles)),
        )


def test_described(tmp_path):
    """What `validate --json` says of all this; a secret in a probe is masked."""
    (tmp_path / "t").mkdir()
    topology = load_text(
        tmp_path / "t",
        "workers:\n  a:\n    command: [run]\n    depends_on: {db: healthy}\n"
        "    ready: {http: 'http://u:${PASS}@h/'}\n    stop: {command: [quit, --token, abc]}\n"
        "  db: {command: [db], health: {exec: [check, --password=abc]}}\n",
        PASS="hidden",
    )
    a, db = describe(topology)["workers"]
    assert a["depends_on"] == {"db": {"condition": "healthy", "required": True, "restart": False}}
    assert a["ready"] == {"http": "***", "timeout": 60.0}
    assert a["stop"]["command"] == ["quit", "--token", "***"]
    assert db["health"]["exec"] == ["check", "--password=***"]
    assert a["restart"]["policy"] == "on-failure"
