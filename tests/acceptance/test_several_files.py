"""A project of several files, by the command."""

import json
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

BASE = "from pbus import BaseWorker\nclass Base(BaseWorker): pass\n"
MICROPHONE = (
    "import os\nfrom base import Base\n"
    "class Microphone(Base):\n"
    "    def __init__(self, name, *, rate):\n"
    "        super().__init__(name)\n"
    "        print(f'{rate} {os.environ[\"LEVEL\"]} in {os.path.basename(os.getcwd())}')\n"
)
FILES = {
    "main.yaml": "name: several\n"
    "include: audio/audio.yaml\n"
    "env_file: main.env\n"
    "workers:\n"
    "  tool: {command: [sh, -c, 'echo $LEVEL; exec sleep 600']}\n"
    "  loud: {extends: {file: audio/audio.yaml, worker: mic}, args: {rate: 2}}\n",
    "main.env": "LEVEL=info\n",
    "base.py": BASE,
    "audio/audio.yaml": "workers: {mic: {worker: 'microphone:Microphone', args: {rate: 1}}}\n",
    "audio/microphone.py": MICROPHONE,
    "prod/prod.yaml": "env: {LEVEL: warning}\n"
    "workers: {tool: {replicas: 2}, mic: {watch: }, extra: {command: [sleep, '600']}}\n",
}
GIVEN = ("-f", "main.yaml", "-f", "prod/prod.yaml")


@pytest.fixture(scope="module")
def place(cli: CliEnv) -> Place:
    """The project, running in the background, with code that is watched."""
    place = cli.place("several", FILES)
    assert 0 == place.run("up", *GIVEN, "--watch", "--wait").code
    return place


def names(place: Place, *options: str) -> list[str]:
    """The processes that `ps` lists."""
    return sorted(row["name"] for row in place.tell(*options, "ps", "--json").json["workers"])


def test_all_files_run(place: Place):
    """Workers of all files run, each in the folder and with the code of its own file."""
    expected = ["extra", "loud", "mic", "tool.1", "tool.2"]
    assert expected == names(place, "-f", "main.yaml")
    assert expected == names(place, *GIVEN)
    assert expected == names(place, "-p", "several")

    said = {name: place.logs(name) for name in ("mic", "loud")}
    assert "1 warning in audio" in said["mic"]
    assert "2 warning in several" in said["loud"]
    assert "warning" in place.logs("tool.2")


def test_other_terminals_know_the_files(place: Place):
    """What reads the topology of a running project reads all its files."""
    record = place.record()
    assert [str(place.folder / "prod" / "prod.yaml")] == record["overrides"]
    assert str(place.folder / "main.yaml") == record["file"]
    assert 0 == place.tell("logs", "--file", "main.yaml", "extra").code
    ran = place.run("run", "-f", "main.yaml", "--", "printenv", "PBUS_PROJECT")
    assert (0, "several\n") == (ran.code, ran.out)
    shown = place.tell("doctor", "--json", "-f", "main.yaml").json["findings"]
    assert [
        f"{place.folder}/main.yaml {place.folder}/prod/prod.yaml is right, with 5 processes"
    ] == [one["text"] for one in shown if one["check"] == "topology"]


def test_override_alone_is_no_project(place: Place):
    """A file that only changes another one names no project."""
    done = place.tell("ps", "-f", "prod/prod.yaml")

    assert done.code in {2, 3}
    assert "extra" not in done.out


def test_code_of_included_files_is_watched(place: Place):
    """A change beside an included file restarts its workers, and no other."""
    before = {
        row["name"]: row["pid"]
        for row in place.tell("ps", "--json", "-p", "several").json["workers"]
    }
    code = place.folder / "audio" / "microphone.py"
    code.write_text(code.read_text() + "# changed\n")

    def rows() -> dict[str, int | None]:
        listed = place.tell("ps", "--json", "-p", "several").json["workers"]
        return {row["name"]: row["pid"] for row in listed if row["state"] == "ready"}

    def restarted() -> bool:
        found = rows()
        return len(found) == 5 and all(found[name] != before[name] for name in ("mic", "loud"))

    wait_for(restarted)
    assert [before[name] for name in ("extra", "tool.1")] == [
        rows()[n] for n in ("extra", "tool.1")
    ]
    assert "changed: audio/microphone.py" in place.logs("mic")


def test_config_shows_the_merged_result(cli: CliEnv):
    """`config` and `validate` take the same files as `up`, as argument or by option."""
    place = cli.place("shown", FILES)
    shown = json.loads(place.tell("config", "--json", *GIVEN).out)

    assert ["main.yaml", "prod.yaml", "audio.yaml"] == [Path(one).name for one in shown["files"]]
    assert 2 == next(one["replicas"] for one in shown["workers"] if one["name"] == "tool")
    done = place.tell("validate", "main.yaml", "-f", "prod/prod.yaml")
    assert (
        0,
        "main.yaml, prod/prod.yaml are right: topology 'several', 4 workers, 5 processes",
    ) == (
        done.code,
        done.out.partition(", on ")[0],
    )
    (place.folder / "audio" / "microphone.py").write_text("class Other: pass\n")
    done = place.tell("validate", *GIVEN)
    assert 2 == done.code
    assert (
        "audio/audio.yaml:1: workers.mic.worker: microphone.py has no class `Microphone`"
        in done.err
    )


def test_down_and_purge_by_the_files(place: Place):
    """The project is stopped, and its data found, by the files that it was started from."""
    assert 0 == place.run("down", *GIVEN).code
    done = place.run("down", "--purge", *GIVEN)
    assert (0, "") == (done.code, done.out)
    assert "purged several" in done.err
