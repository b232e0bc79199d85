"""One topology out of several files: given in order, included, extended."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pbus.errors import TopologyError
from pbus.settings import BusSettings
from pbus.topology import Topology, describe, load_topology
from pbus.topology.code.check_code import code_problems, problems_beside, refuse_problems
from pbus.topology.composition.compose import compose
from pbus.topology.composition.extending import MAX_CHAIN
from pbus.topology.composition.source_files import MAX_FILES
from pbus.topology.policy.policies import HttpProbe, ReadySpec, RestartSpec, TcpProbe
from pbus.topology.problems import Problems
from pbus.topology.yaml_text import yaml_text
from support.topologies import load_text

SLEEP = "{command: [sleep, '9']}"


def write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write files by their names, folders included."""
    paths = [folder / name for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return paths


def load(folder: Path, files: Mapping[str, str], *given: str, **environ: str) -> Topology:
    """Load the given of these files, or else the first."""
    paths = write(folder, files)
    return load_topology([folder / name for name in given] or paths[:1], environ)


def problems_of(
    folder: Path, files: Mapping[str, str], *given: str, environ: Mapping[str, str] | None = None
) -> list[str]:
    """The problems of the given of these files, or else of the first; folders left out."""
    paths = write(folder, files)
    with pytest.raises(TopologyError) as caught:
        load_topology([folder / name for name in given] or paths[:1], environ or {})
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def spec(topology: Topology, name: str = "a") -> dict[str, Any]:
    """A worker as `pbus config --json` has it."""
    return next(one for one in describe(topology)["workers"] if one["name"] == name)


# Several files


def test_merges_files_in_order(tmp_path: Path):
    """Maps are merged at every level; scalars and lists of later files replace."""
    topology = load(
        tmp_path,
        {
            "one.yaml": "name: one\nbus: {channel: c, max_attempts: 3, delivery: at-least-once}\n"
            "workers:\n"
            "  a: {worker: 'm:A', args: {deep: {x: 1, y: [1, 2]}, z: 1}, watch: [src]}\n"
            "  b: {command: [old, words], restart: always}\n",
            "two.yaml": "name: two\nbus: {channel: d}\n"
            "workers:\n"
            "  a: {args: {deep: {y: [3]}, w: 2}, watch: other}\n"
            "  c: {command: [c]}\n",
            "three.yaml": "workers: {b: {command: [new]}, a: {args: {w: {n: 1}}}}\n",
        },
        "one.yaml",
        "two.yaml",
        "three.yaml",
    )

    assert ["a", "b", "c"] == list(topology.workers)
    assert {"deep": {"x": 1, "y": [3]}, "z": 1, "w": {"n": 1}} == topology.workers["a"].args
    assert (tmp_path / "other",) == topology.workers["a"].watch
    assert ("new",) == topology.workers["b"].command
    assert RestartSpec(policy="always") == topology.workers["b"].restart
    assert ("d", 3) == (topology.bus.channel, topology.bus.delivery_options.max_attempts)
    assert ("two", tmp_path / "one.yaml", tmp_path) == (
        topology.name,
        topology.file,
        topology.folder,
    )
    assert (tmp_path / "two.yaml", tmp_path / "three.yaml") == topology.overrides
    assert () == topology.parts


def test_empty_key_removes(tmp_path: Path):
    """A key that a later file leaves empty is as if it had never been there; also a worker."""
    base = (
        "bus: {url: 'redis://h', channel: c}\n"
        "workers:\n"
        "  a: {worker: 'm:A', args: {x: 1, y: 2}, env: {A: 1, B: 2}, replicas: 3, depends_on: [b]}\n"
        "  b: {command: [b]}\n"
    )
    over = (
        "bus: {url: }\n"
        "workers: {a: {args: {x: ~}, env: {A: null, C: }, replicas: , depends_on: null}, b: }\n"
    )
    topology = load(tmp_path, {"a.yaml": base, "b.yaml": over}, "a.yaml", "b.yaml")

    assert BusSettings(url=None, channel="c") == topology.bus
    assert ["a"] == list(topology.workers)
    found = topology.workers["a"]
    assert ({"y": 2}, {"B": "2", "C": ""}, None, ()) == (
        found.args,
        found.env,
        found.replicas,
        found.depends_on,
    )


def test_empty_key_without_another_is_told(tmp_path: Path):
    """A worker that cannot be removed, since there is none, is a mistake as in a single file."""
    found = problems_of(
        tmp_path,
        {"a.yaml": f"workers: {{a: {SLEEP}}}", "b.yaml": "workers: {b: }"},
        "a.yaml",
        "b.yaml",
    )

    assert ["b.yaml:1: workers.b: expected a mapping"] == [
        one.partition(" with")[0] for one in found
    ]


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ("{http: 'http://h/', timeout: 5s}", "{tcp: 80}", (TcpProbe("127.0.0.1", 80), 5.0)),
        ("{http: 'http://h/', timeout: 5s}", "{timeout: 6s}", (HttpProbe("http://h/"), 6.0)),
        ("{http: 'http://h/'}", "{http: , tcp: 80}", (TcpProbe("127.0.0.1", 80), 60.0)),
        ("notify", "{tcp: 80}", (TcpProbe("127.0.0.1", 80), 60.0)),
    ],
)
def test_probes_exclude_each_other(tmp_path: Path, base: str, over: str, expected: Any):
    """Another kind of probe takes the place of the first one, without its being removed by name."""
    text = "workers: {a: {command: [x], ready: %s}}"
    files = {"a.yaml": text % base, "b.yaml": "workers: {a: {ready: " + over + "}}"}
    topology = load(tmp_path, files, "a.yaml", "b.yaml")

    probe, timeout_s = expected
    assert ReadySpec(probe=probe, timeout_s=timeout_s) == topology.workers["a"].ready


def test_program_takes_the_place_of_a_class(tmp_path: Path):
    """A worker is a class or a program: the later file says which. Args are the user's own."""
    files = {
        "a.yaml": "workers: {a: {worker: 'm:A', args: {worker: 1, http: 2}}}",
        "b.yaml": "workers: {a: {args: {command: 3, tcp: 4}}}",
        "c.yaml": "workers: {a: {command: [x], args: }}",
    }
    assert {"worker": 1, "http": 2, "command": 3, "tcp": 4} == (
        load(tmp_path, files, "a.yaml", "b.yaml").workers["a"].args
    )
    changed = load(tmp_path, files, "a.yaml", "b.yaml", "c.yaml").workers["a"]
    assert (None, ("x",), False) == (changed.worker, changed.command, changed.joins)


def test_both_programs_in_one_file_are_a_mistake(tmp_path: Path):
    """What excludes each other in one file does so there still."""
    files = {
        "a.yaml": "workers: {a: {worker: 'm:A'}}",
        "b.yaml": "workers: {a: {worker: 'm:B', command: [x]}}",
    }

    assert [
        "b.yaml:1: workers.a.command: expected `worker` or `command`, got both: remove one"
    ] == (problems_of(tmp_path, files, "a.yaml", "b.yaml"))


def test_problems_name_their_files(tmp_path: Path):
    """Every problem is told with the file and line that its key stands in, all at once."""
    found = problems_of(
        tmp_path,
        {
            "a.yaml": "name: a b\nworkers:\n  a:\n    command: [x]\n    replicas: 0\n    nope: 1\n",
            "sub/b.yaml": "\n\nworkers:\n  a:\n    restart: sometimes\n    env_file: none.env\n"
            "  b: {worker: 'm:B', args: {x: '${UNSET_OF_B}'}}\n",
            "c.yaml": "worker: {}\nworkers: {a: {replicas: x}}\n",
        },
        "a.yaml",
        "sub/b.yaml",
        "c.yaml",
    )

    assert [
        "a.yaml:1: name: expected",
        "a.yaml:6: workers.a.nope: unknown key",
        "sub/b.yaml:5: workers.a.restart: expected",
        "sub/b.yaml:6: workers.a.env_file: the environment file cannot be read: no such file",
        "sub/b.yaml:7: workers.b.args.x: the variable UNSET_OF_B is not set",
        "c.yaml:1: worker: unknown key",
        "c.yaml:2: workers.a.replicas: expected",
    ] == [one[: len(want)] for one, want in zip(found, EXPECTED_STARTS, strict=True)]


EXPECTED_STARTS = (
    "a.yaml:1: name: expected",
    "a.yaml:6: workers.a.nope: unknown key",
    "sub/b.yaml:5: workers.a.restart: expected",
    "sub/b.yaml:6: workers.a.env_file: the environment file cannot be read: no such file",
    "sub/b.yaml:7: workers.b.args.x: the variable UNSET_OF_B is not set",
    "c.yaml:1: worker: unknown key",
    "c.yaml:2: workers.a.replicas: expected",
)


def test_replaced_values_are_not_looked_at(tmp_path: Path):
    """A variable that only a replaced value needs may be unset."""
    files = {
        "a.yaml": "workers: {a: {command: [x], env: {A: '${UNSET}', B: '${B}'}}}",
        "b.yaml": "workers: {a: {env: {A: fixed}}}",
    }

    topology = load(tmp_path, files, "a.yaml", "b.yaml", B="given")
    assert {"A": "fixed", "B": "given"} == topology.workers["a"].env


@pytest.mark.parametrize(
    ("files", "given", "expected"),
    [
        (
            {"a.yaml": "workers: ["},
            "a.yaml b.yaml",
            ["b.yaml: no such", "a.yaml:1: not valid YAML"],
        ),
        (
            {"a.yaml": "", "b.yaml": "[]"},
            "a.yaml b.yaml",
            ["a.yaml:1: the file is", "b.yaml:1: exp"],
        ),
        ({"b.yaml": "name: x"}, "b.yaml", ["b.yaml:1: the key `workers` is missing"]),
        (
            {"b.yaml": "name: x\nname: y"},
            "b.yaml b.yaml",
            ["b.yaml:1: the key `workers`", "b.yaml:2: name: the key is given twice"],
        ),
        ({"a.yaml": "x-a: 1", "b.yaml": '"\\UFFFFFFFF"'}, "a.yaml b.yaml", ["b.yaml: not valid"]),
    ],
)
def test_unreadable_files_are_told_together(
    tmp_path: Path, files: dict[str, str], given: str, expected: list[str]
):
    """Files without a tree are told each, not only the first."""
    found = problems_of(tmp_path, files, *given.split())

    assert expected == [one[: len(want)] for one, want in zip(found, expected, strict=False)]


def test_advice_is_for_the_first_file(tmp_path: Path):
    """`pbus init` writes the first file, never one that changes it."""
    write(tmp_path, {"a.yaml": f"workers: {{a: {SLEEP}}}"})
    for files, hint in ((["no.yaml", "a.yaml"], "`pbus init`"), (["a.yaml", "no.yaml"], None)):
        with pytest.raises(TopologyError) as caught:
            load_topology([tmp_path / name for name in files], {})
        assert hint == (caught.value.hint and caught.value.hint[:11])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("!reset null", "`!reset` is not needed: a key that is left empty removes"),
        ("!reset {A: 1}", "`!reset` is not needed"),
        ("!override [1]", "`!override` is not needed: lists and scalars replace"),
        ("!other x", "a tag (`!...`) is not supported"),
    ],
)
def test_tags_of_compose_lead_on(tmp_path: Path, value: str, expected: str):
    """What Docker Compose merges by tags is told in the words here."""
    files = {"a.yaml": f"workers: {{a: {SLEEP}}}", "b.yaml": f"workers: {{a: {{args: {value}}}}}"}

    (found,) = problems_of(tmp_path, files, "a.yaml", "b.yaml")
    assert found.startswith(f"b.yaml:1: workers.a.args: {expected}")


def test_one_file_given_twice_is_one(tmp_path: Path):
    """The same file again changes nothing, also by another path."""
    topology = load(
        tmp_path,
        {"a.yaml": f"workers: {{a: {SLEEP}}}"},
        "a.yaml",
        "a.yaml",
        "../" + tmp_path.name + "/a.yaml",
    )

    assert ["a"] == list(topology.workers)


# Paths and variables


def test_paths_begin_at_their_own_file(tmp_path: Path):
    """Wherever a path is written, it is relative to the file that it is written in."""
    files = {
        "main/topology.yaml": "include: ../lib/lib.yaml\n"
        "env_file: own.env\n"
        "workers:\n"
        "  a: {extends: {file: '../base/base.yaml'}, watch: [own.txt]}\n"
        "  b: {extends: {file: '../base/base.yaml', worker: a}, working_dir: sub}\n",
        "main/sub/x": "",
        "main/own.env": "OWN=1\nTWO=own\n",
        "lib/lib.yaml": "env_file: [lib.env]\n"
        "workers: {l: {worker: 'm:L', env_file: l.env, watch: src}}\n",
        "lib/lib.env": "LIB=1\nTWO=lib\n",
        "lib/l.env": "L=1\n",
        "base/base.yaml": "workers: {a: {worker: 'm:A', working_dir: data, env_file: [a.env, /dev/null]}}",
        "base/data/x": "",
        "base/a.env": "A=1\n",
        "prod/prod.yaml": "workers: {a: {env_file: prod.env}, p: {command: [p]}}\n",
        "prod/prod.env": "PROD=1\n",
    }
    main, prod = "main/topology.yaml", "prod/prod.yaml"
    write(tmp_path, {**files, "dev_null": ""})
    files["base/base.yaml"] = files["base/base.yaml"].replace("/dev/null", f"{tmp_path}/dev_null")
    topology = load(tmp_path, files, main, prod)
    workers = topology.workers

    assert tmp_path / "main" == topology.folder
    both = {"OWN": "1", "LIB": "1", "TWO": "own"}
    assert [both | {"L": "1"}, both | {"PROD": "1"}, both | {"A": "1"}, both] == [
        workers[name].env for name in "labp"
    ]
    assert [f"{tmp_path}/{name}" for name in ("lib", "base/data", "main/sub", "prod")] == [
        str(workers[name].working_dir) for name in "labp"
    ]
    assert ((tmp_path / "main/own.txt",), (tmp_path / "lib/src",)) == (
        workers["a"].watch,
        workers["l"].watch,
    )
    assert [
        f"{tmp_path}/{name}" for name in ("lib/lib.yaml", "base/base.yaml", "base/base.yaml")
    ] == [str(workers[name].file) for name in "lab"]
    assert (tmp_path / "lib/lib.yaml", tmp_path / "base/base.yaml") == topology.parts
    assert [tmp_path / main, tmp_path / prod] == [*topology.files]
    assert [str(tmp_path / main), str(tmp_path / prod)] == describe(topology)["files"][:2]


def test_wrong_paths_of_other_files_are_told(tmp_path: Path):
    """A value that is no path stays as it is, and its problem with it."""
    found = problems_of(
        tmp_path,
        {
            "a.yaml": "include: [sub/b.yaml]\nworkers: {}",
            "sub/b.yaml": "workers:\n  b: {command: [b], working_dir: 5, watch: ''}\n"
            "  c: {command: [c], working_dir: ~, env_file: [x.env, [y]]}\n"
            "  d: {command: [d], working_dir: gone}\n",
        },
    )

    assert [
        "sub/b.yaml:2: workers.b.working_dir: expected text, got a number (quote it)",
        "sub/b.yaml:2: workers.b.watch: expected text, got an empty text",
        "sub/b.yaml:3: workers.c.env_file[1]: expected text, got a list",
        "sub/b.yaml:4: workers.d.working_dir: there is no such folder (relative to this file's)",
    ] == [one for one in found if "x.env" not in one and "cannot be read" not in one]


def test_dot_env_stands_beside_the_first_file(tmp_path: Path):
    """Its variables count in every file, and in the names of files and workers."""
    files = {
        "a.yaml": "include: '${DIR}/b.yaml'\nworkers: {a: {extends: {worker: '${NAME}', file: '${DIR}/b.yaml'}}}",
        ".env": "DIR=sub\nNAME=b\nWORD=outer\n",
        "sub/b.yaml": "workers: {b: {command: ['${WORD}']}}",
        "sub/.env": "WORD=inner\n",
    }
    topology = load(tmp_path, files)

    assert [("outer",), ("outer",)] == [one.command for one in topology.workers.values()]
    assert ("given",) == load(tmp_path, files, WORD="given").workers["b"].command


def test_secrets_stay_masked(tmp_path: Path):
    """What is a secret where it stands is one wherever it gets to."""
    topology = load(
        tmp_path,
        {
            "a.yaml": "workers: {a: {extends: {file: b.yaml}}}",
            "b.yaml": "workers: {a: {command: [x, '${WORD}'], args: , ready: {log: !secret x}}}",
        },
        WORD="hunter2",
    )
    text = yaml_text(describe(topology))

    assert ["x", "***"] == spec(topology)["command"]
    assert "***" == spec(topology)["ready"]["log"]
    assert "hunter2" not in text


def test_merged_result_is_a_topology(tmp_path: Path):
    """`pbus config` writes one file that means the same as all of them."""
    topology = load(
        tmp_path,
        {
            "a.yaml": "include: b.yaml\nname: x\nworkers: {a: {extends: b, args: {n: 1}}}",
            "b.yaml": "workers: {b: {worker: 'm:B', restart: always}}",
            "c.yaml": "workers: {a: {args: {m: 2}}}",
        },
        "a.yaml",
        "c.yaml",
    )
    (tmp_path / "once").mkdir()
    again = load_text(tmp_path / "once", yaml_text(describe(topology)))

    assert describe(topology)["workers"] == describe(again)["workers"]
    assert "include" not in yaml_text(describe(topology))


# include


def test_includes_once_and_in_order(tmp_path: Path):
    """Files that are included from several places are there once; what is included comes first."""
    topology = load(
        tmp_path,
        {
            "a.yaml": f"include: [b.yaml, c.yaml]\nbus: {{channel: c}}\nworkers: {{a: {SLEEP}}}",
            "b.yaml": f"name: b\ninclude: [d.yaml]\nbus: {{channel: c}}\nworkers: {{b: {SLEEP}}}",
            "c.yaml": f"name: c\ninclude: ./d.yaml\nworkers: {{c: {SLEEP}}}\nx-own: 1",
            "d.yaml": f"env: {{D: 1}}\nx-own: 2\nworkers: {{d: {SLEEP}}}",
        },
    )

    assert ["d", "b", "c", "a"] == list(topology.workers)
    assert tmp_path.name.replace("_", "_") == topology.name
    assert {"D": "1"} == topology.workers["a"].env


def test_topology_may_only_include(tmp_path: Path):
    """A file needs no workers of its own."""
    topology = load(tmp_path, {"a.yaml": "include: b.yaml", "b.yaml": f"workers: {{b: {SLEEP}}}"})

    assert ["b"] == list(topology.workers)


def test_clashes_name_both_places(tmp_path: Path):
    """One name for two workers, and two values for one key, are told with both files and lines."""
    found = problems_of(
        tmp_path,
        {
            "a.yaml": "include:\n  - b.yaml\n  - c.yaml\nenv: {A: 1}\nbus:\n  channel: x\n"
            f"workers:\n  w: {SLEEP}\n  'v.1': {SLEEP}\n",
            "b.yaml": f"env: {{A: 1}}\nworkers:\n  w: {SLEEP}\n  u: {SLEEP}\n  'v.1': {SLEEP}\n",
            "c.yaml": f"bus: {{channel: y}}\nloop: asyncio\nworkers:\n  u: {SLEEP}\n",
        },
    )
    clash = "which is included: only a file given with -f may change it"

    assert [
        f"a.yaml:6: bus.channel: another value is given in c.yaml:1, {clash}",
        f"a.yaml:8: workers.w: another worker has this name in b.yaml:3, {clash}",
        f"a.yaml:9: workers.'v.1': another worker has this name in b.yaml:5, {clash}",
        f"c.yaml:4: workers.u: another worker has this name in b.yaml:4, {clash}",
    ] == [one for one in found if "another" in one]


def test_equal_values_are_no_clash(tmp_path: Path):
    """What two files say alike is said once, whatever it is; quotes make a difference."""
    same = "bus: {url: 'redis://h', max_attempts: 3, delivery: at-least-once}\nloop: asyncio\n"
    files = {
        "a.yaml": f"include: b.yaml\n{same}env: {{A: [1]}}\nworkers: {{a: {SLEEP}}}",
        "b.yaml": f"{same}env: {{A: ['1']}}",
    }

    assert ["a.yaml:4: env.A: another value is given"] == [
        one.partition(" in ")[0] for one in problems_of(tmp_path, files) if "another" in one
    ]


def test_included_files_may_be_changed(tmp_path: Path):
    """A file given with -f changes what the first includes."""
    files = {
        "a.yaml": "include: b.yaml",
        "b.yaml": "workers: {b: {command: [b], replicas: 2}}",
        "c.yaml": "include: d.yaml\nworkers: {b: {replicas: 3}}",
        "d.yaml": f"workers: {{d: {SLEEP}}}",
    }
    topology = load(tmp_path, files, "a.yaml", "c.yaml")

    assert (["b", "d"], 3) == (list(topology.workers), topology.workers["b"].replicas)


def test_circles_of_files_are_told_with_their_path(tmp_path: Path):
    """Files that include each other, or themselves, by whatever path."""
    (tmp_path / "link.yaml").symlink_to("a.yaml")
    found = problems_of(
        tmp_path,
        {
            "a.yaml": f"include:\n  - b.yaml\n  - a.yaml\nworkers: {{a: {SLEEP}}}",
            "b.yaml": "include: c.yaml",
            "c.yaml": "include: link.yaml",
        },
    )

    assert [
        "a.yaml:3: include[1]: these files include each other: a.yaml → a.yaml",
        "c.yaml:1: include: these files include each other: a.yaml → b.yaml → c.yaml → link.yaml",
    ] == found


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("5", "include: expected text, got a number (quote it)"),
        ("{path: b.yaml}", "include: expected a list of files, got a mapping"),
        ("[b.yaml, 5]", "include[1]: expected text, got a number (quote it)"),
        ("''", "include: expected text, got an empty text"),
        ("none.yaml", "include: the file none.yaml cannot be read: no such file"),
        ("[sub]", "include[0]: the file sub cannot be read: it is a folder"),
        ("'${UNSET}.yaml'", "include: the variable UNSET is not set; set it, or write a default"),
        ('"a\\0b"', "include: a NUL character is not allowed"),
    ],
)
def test_wrong_includes(tmp_path: Path, include: str, expected: str):
    """What cannot be included is told where it is named, beside the other problems."""
    (tmp_path / "sub").mkdir()
    files = {
        "a.yaml": f"include: {include}\nworkers: {{a: {SLEEP}, b: {{command: [x], nope: 1}}}}",
        "b.yaml": "x-none: 1",
    }
    told, other = problems_of(tmp_path, files)

    assert told.startswith(f"a.yaml:1: {expected}")
    assert other.startswith("a.yaml:2: workers.b.nope: unknown key")


def test_wrong_parts_are_told_with_the_rest(tmp_path: Path):
    """An included file that is no topology does not hide the problems of the others."""
    found = problems_of(
        tmp_path,
        {
            "a.yaml": "include: [b.yaml, c.yaml, d.yaml]\nworkers: {a: {command: []}}",
            "b.yaml": "workers: [",
            "c.yaml": "",
            "d.yaml": "[]",
        },
    )

    assert ["a.yaml:2", "b.yaml:1", "c.yaml:1", "d.yaml:1"] == [
        one.partition(": ")[0] for one in found
    ]


def test_number_of_files_is_bounded(tmp_path: Path):
    """Files that include ever more files come to an end."""
    files = {f"{n}.yaml": f"include: {n + 1}.yaml" for n in range(MAX_FILES + 5)}

    assert [
        f"{MAX_FILES - 1}.yaml:1: include: the file {MAX_FILES}.yaml cannot be read: more than"
    ] == [
        one.partition(f" {MAX_FILES} files")[0]
        for one in problems_of(tmp_path, files)
        if "workers" not in one
    ]


# extends


def test_worker_extends_another(tmp_path: Path):
    """The keys of the other are its own, but for those that it has itself; over several steps."""
    topology = load(
        tmp_path,
        {
            "a.yaml": "workers:\n"
            "  a: {extends: b, args: {x: 1}, env: {A: a}}\n"
            "  b: {extends: {worker: c}, args: {y: 2}, restart: always, replicas: 2}\n"
            "  c: {worker: 'm:C', args: {x: 0, y: 0, z: 0}, env: {A: c, C: c}, restart: never}\n"
            "  d: {extends: a, replicas: , command: [d], args: ~}\n",
        },
    )
    a, b, c, d = topology.workers.values()

    assert ({"x": 1, "y": 2, "z": 0}, {"A": "a", "C": "c"}, 2) == (a.args, a.env, a.replicas)
    assert ["always", "always", "never", "always"] == [one.restart.policy for one in (a, b, c, d)]
    assert ("m:C", None) == (b.worker, c.replicas)
    assert (None, ("d",), None) == (d.worker, d.command, d.replicas)


def test_extends_the_merged_worker(tmp_path: Path):
    """What a later file changes of the other counts for those that extend it."""
    files = {
        "a.yaml": "include: i.yaml\nworkers: {a: {extends: base}}",
        "i.yaml": "workers: {base: {command: [x], env: {A: 1}}}",
        "b.yaml": "workers: {base: {env: {A: 2}}, c: {extends: a, env: {C: 3}}}",
    }
    topology = load(tmp_path, files, "a.yaml", "b.yaml")

    assert [{"A": "2"}, {"A": "2"}, {"A": "2", "C": "3"}] == [
        topology.workers[name].env for name in ("base", "a", "c")
    ]


def test_extends_a_worker_of_another_file(tmp_path: Path):
    """Of that file only this worker is taken, and what it extends and includes; not its variables."""
    topology = load(
        tmp_path,
        {
            "a.yaml": "workers:\n  one: {extends: {file: lib/b.yaml}}\n"
            "  two: {extends: {file: lib/b.yaml, worker: one}, args: {n: 2}}\n",
            "lib/b.yaml": "include: c.yaml\nenv: {B: 1}\n"
            "workers: {one: {extends: deep}, other: {command: ['${UNSET}'], nope: 1}}",
            "lib/c.yaml": "workers: {deep: {worker: 'm:D', args: {n: 1}}}",
        },
    )

    assert ["one", "two"] == list(topology.workers)
    assert [("m:D", {"n": 1}), ("m:D", {"n": 2})] == [
        (one.worker, one.args) for one in topology.workers.values()
    ]
    assert [{}, {}] == [one.env for one in topology.workers.values()]


def test_circles_of_workers_are_told_once(tmp_path: Path):
    """The path of a cycle is told, over files, too; each cycle once, whatever leads into it."""
    found = problems_of(
        tmp_path,
        {
            "a.yaml": "workers:\n"
            "  a: {extends: b}\n  b: {extends: c}\n  c: {extends: a}\n"
            "  self: {extends: self}\n  into: {extends: a}\n"
            "  far: {extends: {file: b.yaml}}\n",
            "b.yaml": "workers: {far: {extends: {file: a.yaml}}}",
        },
    )

    assert [
        "a.yaml:4: workers.c.extends: these workers extend each other: a → b → c → a",
        "a.yaml:5: workers.self.extends: these workers extend each other: self → self",
        (
            "a.yaml:7: workers.far.extends: these workers extend each other:"
            " far in b.yaml → far in a.yaml → far in b.yaml"
        ),
    ] == found


@pytest.mark.parametrize(
    ("extends", "expected"),
    [
        ("greter", "extends: no worker is named 'greter' (did you mean `greeter`?)"),
        ("zzz", "extends: no worker is named 'zzz' (workers: greeter, a, b)"),
        (
            "[greeter]",
            "extends: expected the name of a worker, or a mapping with keys of worker, file",
        ),
        ("{worker: 'a b'}", "extends.worker: expected a name of at most 64"),
        ("{service: greeter}", "extends.service: unknown key (here: `worker`)"),
        ("{file: none.yaml}", "extends: the file none.yaml cannot be read: no such file"),
        (
            "{file: b.yaml, worker: oter}",
            "extends: no worker is named 'oter' in b.yaml (did you mean `other`?)",
        ),
        ("{file: b.yaml, worker: empty}", "extends: no worker is named 'empty' in b.yaml"),
        ("'${UNSET}'", "extends: the variable UNSET is not set"),
    ],
)
def test_wrong_extends(tmp_path: Path, extends: str, expected: str):
    """What cannot be extended is told, and nothing that would have come from there."""
    text = f"workers:\n  greeter: {SLEEP}\n  a: {{extends: {extends}}}\n  b: {{extends: a}}\n"
    files = {"a.yaml": text, "b.yaml": f"workers: {{other: {SLEEP}, empty: }}"}
    found = problems_of(tmp_path, files)

    assert found[0].startswith(f"a.yaml:3: workers.a.{expected}")
    assert 1 == len(found)


def test_problems_stand_where_the_key_stands(tmp_path: Path):
    """A wrong value that came from another file is told there, under the name of who got it."""
    found = problems_of(
        tmp_path,
        {
            "a.yaml": "workers:\n  a:\n    extends: {file: b.yaml, worker: base}\n    replicas: 0\n"
            "  c: {extends: {file: b.yaml, worker: base}, restart: never}\n",
            "b.yaml": "workers:\n  base:\n    command: [x]\n    restart: sometimes\n    depends_on: [db]\n",
        },
    )

    assert [
        "a.yaml:4: workers.a.replicas: expected a whole number from 1 to 1000, got 0",
        "b.yaml:4: workers.a.restart: expected always, never or on-failure, got 'sometimes'",
    ] == [one for one in found if "depends_on" not in one]


def test_dependencies_of_another_file_must_be_here(tmp_path: Path):
    """What a worker waits for there has to be among the workers here."""
    files = {
        "a.yaml": f"workers: {{a: {{extends: {{file: b.yaml}}}}, dc: {SLEEP}}}",
        "b.yaml": f"workers: {{a: {{command: [x], depends_on: {{db: ready}}}}, db: {SLEEP}}}",
    }
    assert ["b.yaml:1: workers.a.depends_on.db: no worker is named 'db' (workers: a, dc)"] == (
        problems_of(tmp_path, files)
    )
    files["a.yaml"] = files["a.yaml"].replace("b.yaml}", "b.yaml}, depends_on: ")
    assert () == load(tmp_path, files).workers["a"].depends_on


def test_chains_are_bounded(tmp_path: Path):
    """A long row of workers that extend each other is refused before it costs time."""
    rows = [f"  w{n}: {{extends: w{n + 1}}}\n" for n in range(MAX_CHAIN)]
    text = "workers:\n" + "".join(rows) + f"  w{MAX_CHAIN}: {SLEEP}\n"
    topology = load(tmp_path, {"a.yaml": text})
    assert ("sleep", "9") == topology.workers["w0"].command

    longer = text + "  v: {extends: w0}\n"
    found = problems_of(tmp_path, {"a.yaml": longer})
    assert [f"more than {MAX_CHAIN} workers extend each other in a row"] == [
        one.rpartition(": ")[2] for one in found
    ]


def test_size_is_bounded_with_everything_written_out(tmp_path: Path):
    """As with aliases: what many workers extend counts as often as it is extended."""
    args = ", ".join(f"k{n}: 1" for n in range(400))
    workers = "".join(f"  w{n}: {{extends: base}}\n" for n in range(200))
    text = f"workers:\n  base: {{worker: 'm:B', args: {{{args}}}}}\n{workers}"

    assert ["a.yaml:1: more than 50,000 values, with `extends` written out"] == (
        problems_of(tmp_path, {"a.yaml": text})
    )


# What reads the tree afterwards


def test_code_problems_stand_in_their_files(tmp_path: Path):
    """A class is looked for beside the file that names it, and beside the topology."""
    files = {
        "a.yaml": "workers:\n  a: {extends: {file: lib/b.yaml}}\n  c: {worker: 'shared:No'}\n",
        "lib/b.yaml": "include: c.yaml\nworkers: {a: {worker: 'own:Own', args: {nope: 1}}}",
        "lib/c.yaml": "workers: {c: {worker: 'shared:Shared'}}",
        "lib/own.py": "from shared import Shared\nclass Own(Shared): pass\n",
        "shared.py": "from pbus import BaseWorker\nclass Shared(BaseWorker): pass\n",
    }
    (file, *_) = write(tmp_path, files)
    found = code_problems(load_topology(file, {}), {})
    with pytest.raises(TopologyError) as caught:
        refuse_problems([file], {}, found)

    assert [
        "a.yaml:3: workers.c.worker: shared.py has no class `No`",
        "lib/b.yaml:2: workers.a.args.nope: `Own` has no parameter `nope`",
    ] == [
        one.replace(f"{tmp_path}/", "").partition(" (it takes")[0] for one in caught.value.problems
    ]


def test_code_problems_beside_others(tmp_path: Path):
    """Also where a file does not load: with the class' own file and line."""
    files = {
        "a.yaml": "include: lib/b.yaml\nworkers: {a: {worker: 'own:No', replica: 1}}",
        "lib/b.yaml": "workers:\n  b: {worker: 'own:Gone'}\n",
        "lib/own.py": "class Own: pass\n",
    }
    (file, *_) = write(tmp_path, files)
    with pytest.raises(TopologyError) as caught:
        load_topology(file, {})
    whole = problems_beside(caught.value, [file], {})

    assert [
        "a.yaml:2: workers.a.worker: there is no module `own`",
        "lib/b.yaml:2: workers.b.worker: own.py has no class `Gone`",
    ] == [one.replace(f"{tmp_path}/", "") for one in whole.problems[-2:]]


def test_one_process_for_all_files(tmp_path: Path):
    """With `backend: memory` workers of other folders have to name the common one."""
    files = {
        "a.yaml": "include: lib/b.yaml\nbus: {backend: memory}\nworkers: {a: {worker: 'm:A'}}",
        "lib/b.yaml": "workers: {b: {worker: 'm:B'}}",
    }
    assert [
        "a.yaml:3: workers.a.working_dir: on `backend: memory` all workers run in one folder"
    ] == [one.partition(": expected")[0] for one in problems_of(tmp_path, files)]
    files["lib/b.yaml"] = "workers: {b: {worker: 'm:B', working_dir: ..}}"
    assert ["b", "a"] == list(load(tmp_path, files).workers)


def test_composing_leaves_variables_alone(tmp_path: Path):
    """Readers of the tree alone get what is written, not what it stands for."""
    paths = write(tmp_path, {"a.yaml": "workers: {a: {command: ['${X}']}}"})
    problems = Problems(paths[0])
    tree = compose(paths, {"X": "x"}, problems)

    assert "${X}" in str(tree)
    problems.raise_if_any()
    assert (paths[0], 1) == problems.source(tree.line)
