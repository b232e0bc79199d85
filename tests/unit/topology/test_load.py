"""From a file to a checked topology: defaults, every problem at once, and no secret in any."""

import os
from pathlib import Path

import msgspec
import pytest

from pbus.errors import TopologyError
from pbus.settings import BusSettings
from pbus.topology import WorkerInstance, WorkerSpec, load_topology
from pbus.topology.policy.policies import RestartSpec
from pbus.topology.problems import one_of
from pbus.topology.schema import TopologyFile
from pbus.urls import BACKEND_OF_SCHEME
from support.odd_names import ODD_NAMES
from support.topologies import WORKER, load_text, problems_of, problems_of_file, write_topology

SCHEMES = one_of(f"{scheme}://" for scheme in BACKEND_OF_SCHEME)

KEY_PROBLEM = "the key of the bus cannot be used:"
KEY_HINT = "(make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))')"


def worker_text(*lines: str) -> str:
    """A topology of one worker `a` whose keys begin in line 3."""
    return "workers:\n  a:\n" + "".join(f"    {line}\n" for line in lines)


def test_fills_in_defaults(tmp_path):
    """The shortest topology is a whole one."""
    folder = tmp_path / "my app (2)"
    folder.mkdir()
    topology = load_text(folder, WORKER)

    assert "my-app-2" == topology.name
    assert (folder / "topology.yaml", folder) == (topology.file, topology.folder)
    assert (
        BusSettings(
            backend="redis", url=None, channel="pbus:my-app-2", max_message_bytes=4 * 1024 * 1024
        )
        == topology.bus
    )
    assert {
        "a": WorkerSpec(
            name="a",
            worker="workers:Greeter",
            command=None,
            joins=True,
            args={},
            env={},
            working_dir=folder,
            active=True,
            replicas=None,
            restart=RestartSpec(),
            file=folder / "topology.yaml",
        )
    } == topology.workers


def test_reads_every_key(tmp_path):
    """Each key of the format arrives where it belongs."""
    (tmp_path / "data").mkdir()
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    topology = load_text(
        tmp_path,
        """
name: shop
bus:
  backend: redis
  url: redis://:${PW}@localhost:6379/1
  channel: shop-channel
  max_message_bytes: 1024
  encoding: msgpack
loop: uvloop
workers:
  first:
    worker: shop.workers:First
    joins: no
    args: {text: hello, numbers: [1, 2.5, null], deep: {yes: no}}
    env: {B: own, C: 1.50, D: 010, E: yes, F: , G: ~, H: ' x '}
    env_file: .env
    working_dir: data
    active: false
    replicas: 2
    restart: always
  second:
    command: [python, -c, "print('$HOME')", 5, 0x10, true, '']
    joins: true
    restart: never
""",
        PW="secret",
    )
    first, second = topology.workers.values()

    assert ("shop", "uvloop") == (topology.name, topology.loop)
    assert (
        BusSettings(
            backend="redis",
            url="redis://:secret@localhost:6379/1",
            channel="shop-channel",
            max_message_bytes=1024,
            encoding="msgpack",
        )
        == topology.bus
    )
    assert (
        WorkerSpec(
            name="first",
            file=tmp_path / "topology.yaml",
            worker="shop.workers:First",
            joins=False,
            args={"text": "hello", "numbers": [1, 2.5, None], "deep": {"yes": "no"}},
            env={
                "A": "file",
                "B": "own",
                "C": "1.50",
                "D": "010",
                "E": "yes",
                "F": "",
                "G": "~",
                "H": " x ",
            },
            working_dir=tmp_path / "data",
            active=False,
            replicas=2,
            restart=RestartSpec(policy="always"),
        )
        == first
    )
    assert (
        WorkerSpec(
            name="second",
            file=tmp_path / "topology.yaml",
            command=("python", "-c", "print('$HOME')", "5", "0x10", "true", ""),
            joins=True,
            working_dir=tmp_path,
            restart=RestartSpec(policy="never"),
            start="exec",
        )
        == second
    )


def test_commands_join_on_request(tmp_path):
    """A program is not expected on the bus unless it says so."""
    topology = load_text(tmp_path, "workers: {a: {command: [x]}, b: {command: [x], joins: true}}")

    assert [False, True] == [spec.joins for spec in topology.workers.values()]


def test_lists_one_instance_a_process(tmp_path):
    """Replicas are numbered from one, even a single one; without them the name is plain."""
    topology = load_text(
        tmp_path,
        "workers:\n  a: {worker: 'w:W'}\n  b: {worker: 'w:W', replicas: 1}\n"
        "  c: {worker: 'w:W', replicas: 3}\n",
    )

    found = topology.instances()
    assert ["a", "b.1", "c.1", "c.2", "c.3"] == [one.name for one in found]
    assert ["a", "b", "c", "c", "c"] == [one.spec.name for one in found]
    assert WorkerInstance(name="a", spec=topology.workers["a"]) == found[0]


def test_empty_keys_are_absent(tmp_path):
    """A key with nothing behind it is as good as none."""
    topology = load_text(
        tmp_path,
        "name:\nbus:\nworkers:\n  a:\n    worker: w:W\n    command: ~\n    args:\n    env:\n",
    )

    spec = WorkerSpec(
        name="a", worker="w:W", joins=True, working_dir=tmp_path, file=tmp_path / "topology.yaml"
    )
    assert {"a": spec} == topology.workers


def test_values_are_frozen(tmp_path):
    """A checked topology cannot be changed."""
    topology = load_text(tmp_path, WORKER)

    for value in (topology, topology.bus, topology.workers["a"], topology.instances()[0]):
        with pytest.raises(AttributeError):
            value.name = "x"


def test_links_stay(tmp_path):
    """A file is where it was named: behind a linked folder, and where the link to it is."""
    real = tmp_path / "real"
    real.mkdir()
    file = write_topology(real, WORKER)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "linked.yaml").symlink_to(file)

    assert tmp_path / "link" == load_topology(tmp_path / "link" / "topology.yaml", {}).folder
    assert tmp_path / "link" == load_topology(tmp_path / "real/../link/topology.yaml", {}).folder
    assert tmp_path == load_topology(tmp_path / "linked.yaml", {}).folder


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    """A topology named from the current folder knows its place."""
    write_topology(tmp_path, WORKER)
    monkeypatch.chdir(tmp_path)
    topology = load_topology(Path("topology.yaml"), {})

    assert (tmp_path / "topology.yaml", tmp_path) == (topology.file, topology.folder)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("shop", "shop"),
        ("2nd", "_2nd"),
        ("über cool", "ber-cool"),
        ("...", "topology"),
        ("a" * 99, "a" * 64),
    ],
)
def test_names_project_after_folder(tmp_path, folder, name):
    """Without `name` the folder's name serves, made valid."""
    (tmp_path / folder).mkdir()

    assert name == load_text(tmp_path / folder, WORKER).name


def test_reports_all_problems_together(tmp_path):
    """One load tells everything, in the order of the lines, files of variables last."""
    (tmp_path / "vars").write_text("# fine\nA=1\nhunter 2\n")
    text = """\
name: my app
bus:
  url: reddis://:hunter2@localhost
  chanel: x
  max_message_bytes: 12
workers:
  a:
    worker: workers.Greeter
    replica: 3
    env_file: vars
  b:
    restart: alwys
  c.1:
    command: python app.py
    active: maybe
job: 5
"""
    file = write_topology(tmp_path, text)
    with pytest.raises(TopologyError) as caught:
        load_topology(file, {})

    assert file == caught.value.file
    assert (
        (
            f"{file}:1: name: expected a name of at most 64 letters, digits, _ and - that begins with a"
            " letter or _ (. is kept for replicas), got 'my app' (did you mean `my-app`?)"
        ),
        (
            f"{file}:3: bus.url: expected a URL that begins with {SCHEMES} (did you"
            " mean `redis://`?)"
        ),
        f"{file}:4: bus.chanel: unknown key (did you mean `channel`?)",
        f"{file}:5: bus.max_message_bytes: expected a whole number from 1024 to 536870912, got 12",
        (
            f"{file}:8: workers.a.worker: expected module:Class, got 'workers.Greeter' (did you mean"
            " `workers:Greeter`?)"
        ),
        f"{file}:9: workers.a.replica: unknown key (did you mean `replicas`?)",
        (
            f"{file}:11: workers.b: expected `worker: module:Class` or `command: [program, ...]`, got"
            " neither"
        ),
        (
            f"{file}:12: workers.b.restart: expected always, never or on-failure, got 'alwys' (did you"
            " mean `always`?)"
        ),
        (
            f"{file}:13: workers.'c.1': expected a name of at most 64 characters, none of them * ? [ ] @ ,"
            " / \\ $ ` and . (which is kept for replicas), that begins with no - or ~, got 'c.1' (did you"
            " mean `c-1`?)"
        ),
        f"{file}:14: workers.'c.1'.command: expected a list of words like [python, app.py], got text",
        f"{file}:15: workers.'c.1'.active: expected true or false, got 'maybe'",
        f"{file}:16: job: unknown key (known here: name, include, bus, loop, start, preload, metrics, history, env, env_file, workers)",
        f"{tmp_path}/vars:3: workers.a.env_file: expected NAME=VALUE",
    ) == caught.value.problems
    assert f"{file} has 13 problems" == str(caught.value).splitlines()[0]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["worker: w:W", "command: [x]"], "4: workers.a.command: expected `worker` or `command`, got both: remove one"),
        (["active: true"], "2: workers.a: expected `worker: module:Class` or `command: [program, ...]`, got neither"),
        (["worker:"], "2: workers.a: expected `worker: module:Class` or `command: [program, ...]`, got neither"),
        (["worker: 5"], "3: workers.a.worker: expected module:Class, got a number"),
        (["worker: w"], "3: workers.a.worker: expected module:Class, got 'w'"),
        (["worker: ':W'"], "3: workers.a.worker: expected module:Class, got ':W'"),
        (["worker: 'w:'"], "3: workers.a.worker: expected module:Class, got 'w:'"),
        (["worker: w:W.V"], "3: workers.a.worker: expected module:Class, got 'w:W.V'"),
        (["worker: .w:W"], "3: workers.a.worker: expected module:Class, got '.w:W'"),
        (["worker: w.py:W"], "3: workers.a.worker: expected module:Class, got 'w.py:W' (did you mean `w:W`?)"),
        (["worker: ./lib/w.py:W"], "3: workers.a.worker: expected module:Class, got './lib/w.py:W' (did you mean `lib.w:W`?)"),
        (["command: []"], "3: workers.a.command: expected a list of words like [python, app.py], got an empty list"),
        (["command: [a, [b]]"], "3: workers.a.command[1]: expected text, a number, true or false, got a list"),
        (["command:", "- a", "-"], "5: workers.a.command[1]: expected text, got nothing (write '' for an empty text)"),
        (["command: [a]", "args: {x: 1}"], "4: workers.a.args: `args` go to a worker class; put a program's arguments into `command`"),
        (["worker: w:W", "args: [1]"], "4: workers.a.args: expected a mapping, got a list"),
        (["worker: w:W", "args: {1: 2}"], "4: workers.a.args: expected a text as key, got '1' (quote it)"),
        (["worker: w:W", "args: {x: [.inf]}"], "4: workers.a.args.x[0]: infinities and NaN cannot be passed to a worker"),
        (["worker: w:W", "args: {x: 18446744073709551616}"], "4: workers.a.args.x: a whole number must fit in 64 bits (quote it to pass it as text)"),
        (["worker: w:W", "env: {A B: 1}"], "4: workers.a.env.'A B': expected the name of an environment variable, got 'A B'"),
        (["worker: w:W", "env: {A: [1]}"], "4: workers.a.env.A: expected text, a number, true or false, got a list"),
        (["worker: w:W", "env: [A=1]"], "4: workers.a.env: expected a mapping, got a list"),
        (["worker: w:W", "replicas: 0"], "4: workers.a.replicas: expected a whole number from 1 to 1000, got 0"),
        (["worker: w:W", "replicas: 1001"], "4: workers.a.replicas: expected a whole number from 1 to 1000, got 1001"),
        (["worker: w:W", "replicas: 2.0"], "4: workers.a.replicas: expected a whole number from 1 to 1000, got 2.0"),
        (["worker: w:W", "replicas: true"], "4: workers.a.replicas: expected a whole number from 1 to 1000, got true"),
        (["worker: w:W", "replicas: '2'"], "4: workers.a.replicas: expected a whole number from 1 to 1000, got the text '2'"),
        (["worker: w:W", "replicas: [2]"], "4: workers.a.replicas: expected a whole number from 1 to 1000, got a list"),
        (["worker: w:W", "active: 1"], "4: workers.a.active: expected true or false, got 1"),
        (
            ["worker: w:W", "pipecat: true"],
            "4: workers.a.pipecat: `worker` names a class of pbus: a program of Pipecat's is a `command`",
        ),
        (
            ["command: [x]", "pipecat: true", "joins: false"],
            "5: workers.a.joins: a program with `pipecat: true` joins the bus: remove `joins`",
        ),
        (["command: [x]", "pipecat: 1"], "4: workers.a.pipecat: expected true or false, got 1"),
        (["worker: w:W", "joins: 'true'"], "4: workers.a.joins: expected true or false, got the text 'true'"),
        (["worker: w:W", "restart: [always]"], "4: workers.a.restart: expected always, never, on-failure, or a mapping with keys of policy, backoff, max, within, got a list"),
        (["worker: w:W", "restart: qqqqq"], "4: workers.a.restart: expected always, never or on-failure, got 'qqqqq'"),
        (["worker: w:W", "working_dir: nowhere"], "4: workers.a.working_dir: there is no such folder (relative to this file's)"),
        (["worker: w:W", "working_dir: topology.yaml"], "4: workers.a.working_dir: there is no such folder (relative to this file's)"),
        (["worker: w:W", f"working_dir: {'x' * 5000}"], "4: workers.a.working_dir: there is no such folder (relative to this file's)"),
        (["worker: w:W", "working_dir: ''"], "4: workers.a.working_dir: expected text, got an empty text"),
        (["worker: w:W", "working_dir: 5"], "4: workers.a.working_dir: expected text, got a number (quote it)"),
        (["worker: w:W", "env_file: nowhere"], "4: workers.a.env_file: the environment file cannot be read: no such file"),
        (["worker: w:W", "env_file: ."], "4: workers.a.env_file: the environment file cannot be read: it is a folder"),
        (["worker: w:W", "env_file: /dev/zero"], "4: workers.a.env_file: the environment file cannot be read: it is not a regular file"),
        (["worker: w:W", "WORKER: w:W"], "4: workers.a.WORKER: unknown key (did you mean `worker`?)"),
        (["worker: w:W", '"a\\nb": 1'], "4: workers.a.'a\\nb': unknown key (known here: worker, command, stdio, joins, pipecat, args, env, env_file, working_dir, active, replicas, depends_on, ready, health, restart, success_exit_codes, on_exit, limits, start, stop, watch, sends_to, profiles, process, extends)"),
    ],
)  # fmt: skip
def test_refuses_wrong_workers(tmp_path, lines, problem):
    """Each mistake in a worker is one problem that says what was expected."""
    assert [f"topology.yaml:{problem}"] == problems_of(tmp_path, worker_text(*lines))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: the file is empty: expected at least the key `workers`"),
        ("# only a comment\n", "1: the file is empty: expected at least the key `workers`"),
        (
            "- a\n",
            "1: expected a mapping with keys of name, include, bus, loop, start, preload, metrics, history, env, env_file, workers, got a list",
        ),
        (
            "hello",
            "1: expected a mapping with keys of name, include, bus, loop, start, preload, metrics, history, env, env_file, workers, got text",
        ),
        (
            "~",
            "1: expected a mapping with keys of name, include, bus, loop, start, preload, metrics, history, env, env_file, workers, got nothing",
        ),
        (
            "name: x\n",
            (
                "1: the key `workers` is missing: expected at least one worker, like"
                " `greeter: {worker: workers:Greeter}`"
            ),
        ),
        (
            "name: x\nworkers:\n",
            (
                "2: workers: expected at least one worker, like"
                " `greeter: {worker: workers:Greeter}`, got nothing"
            ),
        ),
        (
            "workers: {}\n",
            (
                "1: workers: expected at least one worker, like"
                " `greeter: {worker: workers:Greeter}`, got an empty mapping"
            ),
        ),
        (
            "workers: [a]\n",
            (
                "1: workers: expected at least one worker, like"
                " `greeter: {worker: workers:Greeter}`, got a list"
            ),
        ),
        (
            "workers:\n  a:\n",
            (
                "2: workers.a: expected a mapping with keys of worker, command, stdio, joins, pipecat, args, env,"
                " env_file, working_dir, active, replicas, depends_on, ready, health, restart, success_exit_codes, on_exit, limits, start, stop, watch, sends_to, profiles, process, extends, got nothing"
            ),
        ),
        (
            WORKER + "bus: redis\n",
            (
                "3: bus: expected a mapping with keys of backend, url, channel, max_message_bytes, encoding,"
                " stats, direct, key, encrypt, delivery, max_backlog, max_backlog_bytes, when_full, max_attempts, max_crash_attempts,"
                " got text"
            ),
        ),
        (
            WORKER + "bus: {url: 'redis://h', key: short-secret}\n",
            f"3: bus.key: {KEY_PROBLEM} a key needs 16 characters or more: one has 12 {KEY_HINT}",
        ),
        (
            WORKER + "bus: {url: 'redis://h', key: 'with a blank in the key'}\n",
            (
                f"3: bus.key: {KEY_PROBLEM} a key has other characters than ASCII letters, digits and"
                f" signs {KEY_HINT}"
            ),
        ),
        (
            WORKER + "bus: {url: 'redis://h', encrypt: true}\n",
            "3: bus.encrypt: encryption needs a key: add `key: ${PBUS_KEY}`",
        ),
        (
            WORKER + "bus: {backend: kafka}\n",
            "3: bus.backend: expected memory, pgmq or redis, got 'kafka'",
        ),
        (
            WORKER + "bus: {max_message_bytes: 4 MiB}\n",
            "3: bus.max_message_bytes: expected a whole number from 1024 to 536870912, got '4 MiB'",
        ),
        (
            WORKER + "bus: {max_message_bytes: 536870913}\n",
            "3: bus.max_message_bytes: expected a whole number from 1024 to 536870912, got 536870913",
        ),
        (
            WORKER + "bus: {channel: 'a*'}\n",
            (
                "3: bus.channel: expected 1 to 128 characters without spaces, *, ?, [, ], {, } and"
                " backslashes, got 'a*'"
            ),
        ),
        (
            WORKER + "bus: {url: localhost}\n",
            f"3: bus.url: expected a URL that begins with {SCHEMES}",
        ),
        (WORKER + "bus: {url: 6379}\n", "3: bus.url: expected text, got a number (quote it)"),
        (WORKER + "bus: {url: ''}\n", "3: bus.url: expected text, got an empty text"),
        (
            WORKER + "bus: {url: 'redis://h:x'}\n",
            (
                "3: bus.url: expected HOST:PORT with a port from 1 to 65535"
                " (percent-encode special characters in a user or password)"
            ),
        ),
    ],
)
def test_refuses_wrong_files(tmp_path, text, problem):
    """Each mistake at the top or in the bus is one problem with its line."""
    assert [f"topology.yaml:{problem}"] == problems_of(tmp_path, text)


@pytest.mark.parametrize(
    "name",
    ["-a", "~a", " a", "a ", "a.1", "", "a" * 65, "a\n", "a/b", "$x", "a,b", "a@b", "*", "a\tb"],
)
def test_refuses_worker_names(tmp_path, name):
    """A name that could not be addressed, or could be a replica's, is refused."""
    key = msgspec.json.encode(name).decode()
    found = problems_of(tmp_path, f"workers: {{{key}: {{worker: 'w:W'}}}}")

    assert 1 == len(found)
    assert "expected a name of at most 64 characters" in found[0]


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "_",
        "A-b_C-9",
        "a" * 64,
        "a b",
        "1a",
        "12",
        "ä",
        *(name for name in ODD_NAMES if "." not in name),
    ],
)
def test_takes_worker_names(tmp_path, name):
    """Any text that is no address of another kind; as a dependency, too."""
    key = msgspec.json.encode(name).decode()
    text = (
        f"workers: {{{key}: {{worker: 'w:W'}}, z: {{worker: 'w:W', depends_on: {{{key}: ready}}}}}}"
    )
    topology = load_text(tmp_path, text)
    assert [name, "z"] == list(topology.workers)
    assert [name] == [one.worker for one in topology.workers["z"].depends_on]


def test_refuses_contradicting_backend(tmp_path):
    """A URL of one backend under the name of another is refused."""
    assert [
        "topology.yaml:3: bus.url: postgresql:// is a URL of the pgmq bus, but `backend` is redis"
    ] == problems_of(tmp_path, WORKER + "bus: {url: 'postgresql://h/db', backend: redis}\n")


def test_reads_environment_files(tmp_path):
    """The usual ways to write a variable all work."""
    (tmp_path / "vars.env").write_bytes(
        b"\xef\xbb\xbf# comment\r\n\r\nPLAIN=a b # comment\r\nexport EXPORTED=x\nEMPTY=\n"
        b'HASH=a#b\nSPACED = x \nSINGLE=\'a # "b" \\n\' # comment\nDOUBLE="a\\n\\"b\\" \\\\ #"\n'
        b"DOLLAR='${HOME}'\nEQUALS=a=b\nTWICE=1\nTWICE=2\nUNICODE=\xc3\xa9\n  # indented\nCOMMENT=#x\n"
    )
    topology = load_text(tmp_path, worker_text("worker: w:W", "env_file: vars.env"))

    assert {
        "PLAIN": "a b",
        "EXPORTED": "x",
        "EMPTY": "",
        "HASH": "a#b",
        "SPACED": "x",
        "SINGLE": 'a # "b" \\n',
        "DOUBLE": 'a\n"b" \\ #',
        "DOLLAR": "${HOME}",
        "EQUALS": "a=b",
        "TWICE": "2",
        "UNICODE": "é",
        "COMMENT": "#x",
    } == topology.workers["a"].env


def test_places_environment_problems(tmp_path):
    """A malformed line is told with its own file and line, once, and never quoted."""
    (tmp_path / "vars").write_text(
        'A=1\nhunter 2\nB=\'hunter2\nC="hunter2" x\nB C=hunter2\n=hunter2\n'
    )
    text = "workers:\n" + "".join(
        f"  {name}: {{worker: 'w:W', env_file: vars}}\n" for name in ("a", "b")
    )
    unclosed = "expected one quoted value, with its closing quote at the end of the line"

    assert [
        "vars:2: workers.a.env_file: expected NAME=VALUE",
        f"vars:3: workers.a.env_file: {unclosed}",
        f"vars:4: workers.a.env_file: {unclosed}",
        "vars:5: workers.a.env_file: expected NAME=VALUE",
        "vars:6: workers.a.env_file: expected NAME=VALUE",
    ] == problems_of(tmp_path, text)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfea\0", "line 1 is not UTF-8 text"),
        (b"a: 1\nb: \xff\n", "line 2 is not UTF-8 text"),
        (b"a: 1\0", "it holds NUL characters, so it is not text"),
        (b"#" * (1024 * 1024 + 1), "it is larger than 1024 KiB"),
    ],
)
def test_refuses_unreadable_content(tmp_path, content, reason):
    """A file that is no text is refused before YAML sees it."""
    assert [f"topology.yaml: {reason}"] == problems_of(tmp_path, content)


def test_refuses_missing_files(tmp_path):
    """A path without a file, or with something else, is a problem like any other."""
    os.mkfifo(tmp_path / "pipe")

    assert ["none.yaml: no such file"] == problems_of_file(tmp_path / "none.yaml", {})
    assert ["x: no such file"] == problems_of_file(tmp_path / "pipe" / "x", {})
    assert [f"{tmp_path.name}: it is a folder"] == problems_of_file(tmp_path, {})
    assert ["pipe: it is not a regular file"] == problems_of_file(tmp_path / "pipe", {})
    assert ["a\0b: the name holds a NUL character"] == problems_of_file(tmp_path / "a\0b", {})
    assert [f"{'x' * 999}: file name too long"] == problems_of_file(tmp_path / ("x" * 999), {})


@pytest.mark.parametrize(
    "lines",
    [
        ["worker: w:W", "env: {PASSWORD=hunter2}"],
        ["worker: w:W", "env: {PASSWORD:hunter2}"],
        ["worker: w:W", "env: {PASSWORD: !hunter2 x}"],
        ["worker: w:W", "env: {PASSWORD: !hunter2!x y}"],
        ["worker: w:W", "env: {PASSWORD: *hunter2}"],
        ["worker: w:W", "env: {PASSWORD: [hunter2]}"],
        ["worker: w:W", "env: hunter2"],
        ["worker: w:W", "env: {'${SECRET} x': '${SECRET}'}"],
        ["worker: ${SECRET}", "restart: ${SECRET}", "replicas: ${SECRET}", "active: ${SECRET}"],
        ["worker: w:W", "working_dir: ${SECRET}", "env_file: ${SECRET}"],
        ["worker: w:W", "restart: ${SECRET:-x}y", "args: ${SECRET}"],
        ["command: ${SECRET}"],
        ["worker: w:W", "x: ${SECRETT}"],
    ],
)
def test_never_tells_secrets(tmp_path, lines):
    """A problem names keys and variables, never what an environment or a URL holds."""
    bus = "bus: {url: 'hunter2:${SECRET}', channel: '${SECRET} x'}\nname: ${SECRET} x\n"
    found = problems_of(tmp_path, worker_text(*lines) + bus, SECRET="hunter2 b")

    assert found
    assert "hunter2" not in "\n".join(found)


@pytest.mark.parametrize(
    "url",
    ["redis://:hunter2@h:x", "hunter2", "hunter2://x", "redis://h/hunter2", "redis://a hunter2"],
)
def test_never_tells_urls(tmp_path, url):
    """A wrong URL is told without being quoted, even where it stands in the file."""
    found = problems_of(tmp_path, WORKER + f"bus: {{url: '{url}'}}\n")

    assert 1 == len(found)
    assert "hunter2" not in found[0]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("worker: 'w:W'", (True, False)),
        ("command: [x]", (False, False)),
        ("command: [x], joins: true", (True, False)),
        ("command: [x], pipecat: true", (True, True)),
        ("command: [x], pipecat: false", (False, False)),
        ("command: [x], pipecat: true, joins: true", (True, True)),
    ],
)
def test_a_program_of_pipecat_joins(tmp_path, keys, expected):
    """By its sidecar; a worker class does by itself, any other program as it is told."""
    spec = load_text(tmp_path, f"workers: {{a: {{{keys}}}}}").workers["a"]
    assert expected == (spec.joins, spec.pipecat)


def test_describes_every_key():
    """An editor can be given a JSON Schema in which each key explains itself."""
    schema = msgspec.json.schema(TopologyFile)
    definitions = schema["$defs"]
    keys = {
        f"{name}.{key}": "description" in value
        for name, definition in definitions.items()
        for key, value in definition["properties"].items()
    }

    assert 95 == len(keys)
    assert all(keys.values())
    assert all(not definition["additionalProperties"] for definition in definitions.values())
    assert ["workers"] == definitions["TopologyFile"]["required"]


def test_loads_large_topologies(tmp_path):
    """A thousand workers are no trouble."""
    lines = [f"  w{n}: {{worker: 'w:W', args: {{n: {n}}}, restart: always}}\n" for n in range(1000)]

    assert 1000 == len(load_text(tmp_path, "workers:\n" + "".join(lines)).workers)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("metrics: {}", "127.0.0.1", 9464),
        ("metrics: {listen: 9000}", "127.0.0.1", 9000),
        ("metrics: {listen: '0.0.0.0:9000'}", "0.0.0.0", 9000),
        ("metrics: {listen: '[::1]:80'}", "::1", 80),
    ],
)
def test_metrics_have_an_address(tmp_path, text, host, port):
    """A host and a port; of this machine where only the port is given."""
    found = load_text(tmp_path, WORKER + text + "\n").metrics

    assert (host, port) == (found.host, found.port)
    assert load_text(tmp_path, WORKER).metrics is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("metrics: {listen: here}", "metrics.listen: expected HOST:PORT or a port"),
        ("metrics: {listen: 99999}", "metrics.listen: expected HOST:PORT or a port"),
        ("metrics: {port: 1}", "metrics.port: unknown key"),
        ("metrics: {}\nbus: {backend: memory}", "metrics: `backend: memory` has no supervisor"),
    ],
)
def test_wrong_metrics_are_problems(tmp_path, text, problem):
    """An address that is none, and a project without a supervisor to tell them."""
    with pytest.raises(TopologyError) as caught:
        load_text(tmp_path, WORKER + text + "\n")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("history: {}", True),
        ("history: {traffic: false}", False),
        ("bus: {delivery: at-least-once}", True),
        ("bus: {delivery: at-least-once}\nhistory: {traffic: false}", False),
        ("bus: {backend: pgmq}", False),
        ("bus: {backend: pgmq}\nhistory: {traffic: true}", True),
        ("bus: {backend: memory}", False),
        ("bus: {backend: memory}\nhistory: {traffic: false}", False),
    ],
)
def test_traffic_is_kept_where_it_costs_little(tmp_path, text, expected):
    """Not where the server stores a row of each message for it, unless the file says so."""
    assert expected is load_text(tmp_path, WORKER + text + "\n").history.traffic


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("history: {traffic: 3}", "history.traffic: expected"),
        ("history: {logs: true}", "history.logs: unknown key"),
        ("history: {traffic: true}\nbus: {backend: memory}", "history.traffic: `backend: memory`"),
    ],
)
def test_wrong_history_is_a_problem(tmp_path, text, problem):
    """A value that is none, and a project without a supervisor to keep it."""
    with pytest.raises(TopologyError) as caught:
        load_text(tmp_path, WORKER + text + "\n")
    assert problem in str(caught.value)


def test_start_of_workers(tmp_path):
    """The file's holds for those that do not say, and one of a process says for all in it."""
    topology = load_text(
        tmp_path,
        """
start: exec
preload: [numpy, my.models]
workers:
  a: {worker: 'm:A'}
  b: {worker: 'm:B', start: fork}
  c: {worker: 'm:C', process: p, start: fork}
  d: {worker: 'm:D', process: p}
  e: {command: [x], stdio: jsonl}
""",
    )
    starts = {name: spec.start for name, spec in topology.workers.items()}
    assert {"a": "exec", "b": "fork", "c": "fork", "d": "fork", "e": "exec"} == starts
    assert ("numpy", "my.models") == topology.preload
    plain = load_text(tmp_path, "workers: {a: {worker: 'm:A'}, b: {command: [x]}}")
    assert "exec" == plain.workers["b"].start
    assert ("fork", ()) == (plain.workers["a"].start, plain.preload)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("start: spawn\n", "1: start: expected exec or fork, got 'spawn'"),
        ("preload: numpy\n", "1: preload: expected a list, got text"),
        ("preload: [./m.py]\n", "1: preload[0]: expected the name of a module, got './m.py'"),
        ("preload: [a.]\n", "1: preload[0]: expected the name of a module, got 'a.'"),
        ("", "3: workers.b.start: a program is always started by exec: leave it out"),
    ],
)
def test_refuses_wrong_starts(tmp_path, text, problem):
    """Each with its line."""
    program = "  b: {command: [x], start: fork}\n" if not text else ""
    with pytest.raises(TopologyError) as caught:
        load_text(tmp_path, f"{text}workers:\n  a: {{worker: 'm:A'}}\n{program}")
    assert (f"{tmp_path / 'topology.yaml'}:{problem}",) == tuple(caught.value.problems)
