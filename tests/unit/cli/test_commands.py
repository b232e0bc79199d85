"""The verbs from the outside, as far as nothing need run: usage, files, exit codes, speed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pbus.client import Client, attachment
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.settings import BusSettings
from pbus.topology import load_topology
from pbus_cli.app import app

CLASS = "from pbus import BaseWorker\n\nclass A(BaseWorker):\n    pass\n"
GOOD = "name: good\nworkers:\n  a: {worker: 'm:A'}\n  b: {command: [sleep, '1'], replicas: 2}\n"
BAD = "workers:\n  a: {worker: 'm:A', replica: 2}\n  b: {restart: sometimes}\n"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder and a working folder in which nothing runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def pbus(*arguments: str, stdin: str | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.mark.parametrize("verb", ["up", "ps", "send", "tail", "logs", "down", "validate"])
def test_every_verb_has_help(verb: str) -> None:
    """One sentence and the options, without markup."""
    done = pbus(verb, "--help")

    assert 0 == done.exit_code
    assert done.stdout.startswith(f"Usage: pbus {verb} ")


def test_help_loads_little() -> None:
    """`--help` stays far below 0.3 s: nothing heavy is imported for it."""
    heavy = {
        "rich", "redis", "asyncio", "psutil", "yaml", "msgspec", "textual", "pbus.bus",
        "pbus.messages",
    }  # fmt: skip
    code = (
        "import sys; from pbus_cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = {name.strip("' ") for name in done.stderr.strip("[]\n").split(",")}

    assert set() == loaded & heavy
    assert "validate" in done.stdout


def test_lines_load_no_display() -> None:
    """What is printed to a pipe needs no library of displays."""
    code = (
        "import sys, pbus_cli.call.look_on, pbus_cli.call.attach, pbus_cli.live.following\n"
        "import pbus_cli.launch.foreground, pbus_cli.views.tables.worker_table\n"
        "print('textual' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert "False True" == done.stdout.strip()


def test_validate_describes_topology() -> None:
    """What there is, in a sentence or as JSON."""
    Path("topology.yaml").write_text(GOOD)
    Path("m.py").write_text(CLASS)

    text, as_json = pbus("validate"), pbus("validate", "--json")

    assert (0, 0) == (text.exit_code, as_json.exit_code)
    assert "topology 'good', 2 workers, 3 processes, on an embedded Valkey" in text.stdout
    Path("pg.yaml").write_text(GOOD + "bus: {backend: pgmq}\n")
    assert "on an embedded Postgres" in pbus("validate", "pg.yaml").stdout
    described = json.loads(as_json.stdout)
    assert described["ok"] is True
    assert ["b.1", "b.2"] == described["workers"][1]["instances"]


def test_validate_shows_all_problems() -> None:
    """On stderr, with lines; nothing on stdout but JSON when asked for."""
    Path("bad.yaml").write_text(BAD)

    text, as_json = pbus("validate", "bad.yaml"), pbus("validate", "bad.yaml", "--json")

    assert (2, "") == (text.exit_code, text.stdout)
    for expected in ("bad.yaml:2", "replica", "bad.yaml:3", "restart"):
        assert expected in text.stderr
    report = json.loads(as_json.stdout)
    assert (2, False) == (as_json.exit_code, report["ok"])
    assert len(report["problems"]) >= 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps",), ("ps", "--json"), ("ps", "--watch"), ("tail",), ("logs",), ("down",),
        ("send", "a", "--text", "x"), ("ps", "-p", "nobody"), ("logs", "-p", "nobody"),
        ("-p", "nobody", "down"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_nothing_running_is_three(arguments: tuple[str, ...]) -> None:
    """Every verb says so, and what starts a project."""
    done = pbus(*arguments)

    assert (3, "") == (done.exit_code, done.stdout)
    assert "pbus up" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "No such command"),
        (("ps", "--jsn"), "--json"),
        (("send", "--text", "x"), "TARGET or --all"),
        (("send", "a", "--all", "--text", "x"), "TARGET or --all"),
        (("send", "a"), "--text, --type and --job"),
        (("send", "a", "--text", "x", "--type", "T"), "--text, --type and --job"),
        (("send", "a", "--text", "x", "--data", "{}"), "--text brings its own data"),
        (("send", "a", "--text", "x", "--wait"), "only a --job is answered"),
        (("send", "--all", "--job", "j"), "for one worker"),
        (("send", "a", "--job", "j", "--data", '{"a":'), "line 1, column 6"),
        (("send", "a", "--job", "j", "--data", "[1]"), "must be a JSON object, not an array"),
        (("send", "a", "--job", "j", "--data", '{"a": NaN}'), "NaN is no JSON number"),
        (("send", "a", "--job", "j", "--data", "@none.json"), "none.json"),
        (("send", "a", "--type", "BusFrameMessage"), "required field `frame`"),
        (("send", "a", "--text", "x", "--count", "0"), "--count"),
        (("send", "--all", "--text", "x", "--key", "k"), "a key chooses one of several replicas"),
        (("send", "a", "--text", "x", "--key", ""), "a key is not empty"),
        (("send", "a", "--job", "j", "--key", "x" * 257), "at most 256 bytes, not 257"),
        (("send", "a", "--type", "Note", "--data", '{"key": "k"}'), "given beside the data"),
        (("tail", "--grep", "("), "--grep"),
        (("tail", "--for", "soon"), "10s"),
        (("tail", "--category", "local"), "local"),
        (("validate", "none.yaml"), "none.yaml"),
        (("up", "none.yaml"), "none.yaml"),
        (("bench", "stall", "--peers"), "only in fanout, rtt, stored-jobs"),
        (("bench", "rtt", "--loop", "trio"), "'asyncio', 'uvloop'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_usage_is_two(arguments: tuple[str, ...], said: str) -> None:
    """Before anything is looked for or started; the reason names the option or the place."""
    done = pbus(*arguments)

    assert (2, "") == (done.exit_code, done.stdout)
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize(("only", "near"), [("bb", "'b'"), ("a,b.11", "'b.1'")])
def test_only_knows_its_names(only: str, near: str) -> None:
    """An unknown name of --only is refused with the nearest one."""
    Path("topology.yaml").write_text(GOOD)
    done = pbus("up", "--only", only)

    assert 2 == done.exit_code
    assert f"did you mean {near}?" in " ".join(done.stderr.split())


def test_logs_of_stopped_project() -> None:
    """They are found by the topology; a worker that is unknown is refused."""
    Path("topology.yaml").write_text(GOOD)

    assert (3, "") == (pbus("logs").exit_code, pbus("logs", "b").stdout)
    assert "has never run here" in pbus("logs").stderr
    Project.of(load_topology(Path("topology.yaml"), {})).make_state_dir()
    assert (0, "") == (pbus("logs").exit_code, pbus("logs", "b").stdout)
    assert 2 == pbus("logs", "aa").exit_code


def test_file_before_verb() -> None:
    """-f and -p may stand before the verb, too."""
    Path("elsewhere.yaml").write_text(GOOD)
    Path("m.py").write_text(CLASS)

    assert "elsewhere.yaml is right" in pbus("-f", "elsewhere.yaml", "validate").stdout


def test_unreachable_url_is_three() -> None:
    """A topology with a server of its own is asked, even when nothing runs here."""
    Path("topology.yaml").write_text(GOOD + "bus: {url: 'redis://u:secret@127.0.0.1:1'}\n")
    done = pbus("ps")

    assert 3 == done.exit_code
    assert "127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["table", "json"])
def test_lost_broker_shows_record(monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]) -> None:
    """Without its broker a project is still told from nothing, by what its supervisor wrote down."""
    record = ProjectRecord(
        name="shop", folder="/srv/shop", file="/srv/shop/topology.yaml", session="s",
        bus=BusSettings(url="redis://u:secret@127.0.0.1:1", channel="c"), pid=4711,
        pid_created=0.0, version="0",
    )  # fmt: skip
    monkeypatch.setattr(attachment, "choose_project", lambda *_: record)
    monkeypatch.setitem(Client.at.__func__.__kwdefaults__, "connect_timeout", 0.2)  # type: ignore[attr-defined]
    done = pbus("ps", *flags)

    assert 3 == done.exit_code
    assert "secret" not in done.output
    if flags:
        shown = {"project": "shop", "bus": "redis://u:***@127.0.0.1:1", "workers": []}
        assert shown == json.loads(done.stdout)
    else:
        assert "shop in /srv/shop: supervisor pid 4711" in done.stdout


def test_version_is_told() -> None:
    """For reports of bugs."""
    assert pbus("--version").stdout.startswith("pbus 0.")
