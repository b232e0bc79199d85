"""`pbus init`, `pbus schema` and `pbus completion`, as far as nothing need run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pbus.topology import load_topology
from pbus.topology.json_schema import topology_schema
from pbus_cli.app import app
from pbus_cli.input.examples import SCHEMA_FILE, example_names

FILES = {"topology.yaml", "workers.py", "test_workers.py", SCHEMA_FILE}
MORE_FILES = {"voice": {"clock.sh", "tones.py"}}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder and a working folder in which nothing runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def pbus(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(arguments))


def present() -> list[str]:
    """The files here."""
    return sorted(path.name for path in Path().iterdir())


def completions(*words: str, variable: str = "complete_bash") -> tuple[int, list[str], str]:
    """What a shell is told about the last of these words."""
    asking = {
        "_PBUS_COMPLETE": variable,
        "COMP_WORDS": "\n".join(("pbus", *words)),
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": " ".join(("pbus", *words)),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [str(Path(sys.executable).with_name("pbus"))],
        env=os.environ | asking,
        capture_output=True,
        text=True,
        timeout=30,
    )
    names = [line.partition("\t")[0] for line in done.stdout.splitlines() if line]
    return done.returncode, names, done.stderr


@pytest.mark.parametrize("name", example_names())
def test_example_is_written(name: str):
    """All files are there, the topology is right, and its first line names the schema."""
    done = pbus("init", "place", "--example", name)
    place = Path("place")

    assert (0, "") == (done.exit_code, done.stdout)
    files = FILES | MORE_FILES.get(name, set())
    assert files == {path.name for path in place.iterdir()}
    assert "place" == load_topology(place / "topology.yaml", {}).name
    first, *_ = (place / "topology.yaml").read_text().splitlines()
    assert f"# yaml-language-server: $schema={SCHEMA_FILE}" == first
    assert topology_schema() == json.loads((place / SCHEMA_FILE).read_text())
    for file in files:
        assert f"wrote place/{file}" in done.stderr


@pytest.mark.parametrize("name", example_names())
def test_example_tests_itself(name: str):
    """The test that comes with an example passes."""
    pbus("init", ".", "--example", name)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert 0 == done.returncode, done.stdout


def test_nothing_is_overwritten():
    """One file in the way, and nothing is written; --force says that it may go."""
    Path("workers.py").write_text("mine")

    refused = pbus("init")
    assert (1, ["workers.py"]) == (refused.exit_code, present())
    assert "workers.py exists already" in refused.stderr
    assert "--force" in refused.stderr

    assert 0 == pbus("init", "--force").exit_code
    assert "mine" not in Path("workers.py").read_text()


def test_unknown_example_is_refused():
    """With the nearest name; nothing is written. The help names them all."""
    done = pbus("init", "--example", "jbs")

    assert (2, []) == (done.exit_code, present())
    assert "did you mean 'jobs'?" in done.stderr
    listed = pbus("init", "--help").stdout
    assert [] == [name for name in example_names() if name not in listed]


def test_schema_is_printed():
    """As JSON, on stdout."""
    done = pbus("schema")

    assert (0, "") == (done.exit_code, done.stderr)
    assert topology_schema() == json.loads(done.stdout)


def test_no_projects_is_no_error():
    """`pbus ls` without any says so, and lists none."""
    text, as_json = pbus("ls"), pbus("ls", "--json")

    assert (0, "", "no project runs on this machine\n") == (
        text.exit_code, text.stdout, text.stderr,
    )  # fmt: skip
    assert {"projects": []} == json.loads(as_json.stdout)


@pytest.mark.parametrize("verb", ["restart", "stop", "start", "events"])
def test_nothing_running_is_told(verb: str):
    """Without a project there is no worker to control or to follow."""
    done = pbus(verb, *([] if verb == "events" else ["a"]))

    assert 3 == done.exit_code
    assert "no running project" in done.stderr


@pytest.mark.parametrize(
    ("shell", "expected"),
    [("bash", "complete -o default"), ("zsh", "compdef"), ("fish", "complete --command pbus")],
)
def test_scripts_are_printed(shell: str, expected: str, monkeypatch: pytest.MonkeyPatch):
    """For the shell that is named, or for one's own."""
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    named, own = pbus("completion", shell), pbus("completion")

    assert (0, named.stdout) == (named.exit_code, own.stdout)
    assert expected in named.stdout


def test_strange_shell_is_refused(monkeypatch: pytest.MonkeyPatch):
    """There is no script for every shell."""
    monkeypatch.setenv("SHELL", "/bin/ksh")

    assert 2 == pbus("completion").exit_code
    assert 2 == pbus("completion", "ksh").exit_code


@pytest.mark.parametrize("variable", ["complete_bash", "complete_fish"])
def test_words_complete(variable: str):
    """Verbs, types and examples, which need nothing that runs."""
    assert (0, ["restart"], "") == completions("rest", variable=variable)
    assert (0, ["BusFrameMessage"], "") == completions("send", "--type", "BusF", variable=variable)
    assert (0, ["hello"], "") == completions("init", "--example", "he", variable=variable)


@pytest.mark.parametrize(
    "words",
    [
        ("restart", ""),
        ("send", "a", "--job", ""),
        ("-p", ""),
        ("logs", ""),
        ("tail", "--source", ""),
    ],
)
def test_nothing_completes_silently(words: tuple[str, ...]):
    """When nothing runs there is nothing to complete, and nothing to say about it."""
    assert (0, [], "") == completions(*words)
