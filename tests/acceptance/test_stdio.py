"""Programs that are workers by their stdin and stdout, in a real project."""

import json
import re
import shutil
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = {
    "shout.sh": next(re.finditer(r"```sh\n(#!/bin/sh\n# shout\.sh.*?)```", README, re.DOTALL))[1],
    "count.js": next(re.finditer(r"```js\n(// count\.js.*?)```", README, re.DOTALL))[1],
}
HAS_NODE = shutil.which("node") is not None
TOPOLOGY = f"""
name: mill
bus: {{delivery: at-least-once}}
workers:
  shout: {{command: [./shout.sh], stdio: jsonl}}
  main:
    command: [./main.sh]
    stdio: jsonl
    ready: line
    restart: {{backoff: {{initial: 10ms}}}}
    depends_on: [shout]
  {"count: {command: [node, count.js], stdio: jsonl}" if HAS_NODE else "x-count: none"}
"""
# Keeps what it reads; fails over each message that says so, the first time.
MAIN = """#!/bin/sh
echo '{"ready": true}'
while read -r line; do
  printf '%s\\n' "$line" >> lines
  case $line in
    *'"stumble":"'*)
      name=${line#*'"stumble":"'} name=${name%%'"'*}
      [ -e "$name" ] || { : > "$name"; exit 3; } ;;
  esac
done
echo 'the end' >&2
"""


@pytest.fixture(scope="module")
def mill(cli: CliEnv) -> Place:
    """A project of programs."""
    place = cli.place("mill", {"topology.yaml": TOPOLOGY, "main.sh": MAIN, **EXAMPLES})
    for program in ("main.sh", "shout.sh"):
        (place.folder / program).chmod(0o755)
    place.up()
    return place


def lines(mill: Place) -> list[dict]:
    """What the program `main` has read."""
    path = mill.folder / "lines"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_examples_of_the_readme_work(mill: Place):
    """The shell one answers and passes on; the one for Node is skipped where there is no Node."""
    assert {"text": "HALLO WELT"} == mill.ask("shout", "any", {"text": "hallo welt"})
    done = mill.run("send", "shout", "--type", "Greeting", "--data", '{"text": "x"}')
    assert 0 == done.code, done.err
    echo = wait_for(lambda: [one for one in lines(mill) if one.get("type") == "Echo"])[0]
    assert ("shout", "main") == (echo["source"], echo["target"])
    assert ("Greeting", {"text": "x"}) == (
        echo["data"]["line"]["type"],
        echo["data"]["line"]["data"],
    )
    assert {"main", "shout"} <= mill.rows().keys()
    if not HAS_NODE:
        pytest.skip("node is not installed: its example was not run")
    assert {"length": 5} == mill.ask("count", "length", {"text": "hallo"})
    failed = mill.run("send", "count", "--job", "dance", "--wait")
    assert 1 == failed.code
    assert "no job dance" in failed.err


def test_message_in_hand_at_a_crash_comes_again(mill: Place):
    """The worker is restarted under its name, with the program's exit code in the log; nothing is lost."""
    before = mill.rows()["main"]["pid"]
    for data in ('{"n": 1}', '{"stumble": "stone"}', '{"n": 2}'):
        assert 0 == mill.tell("send", "main", "--type", "Step", "--data", data).code
    wait_for(lambda: {"n": 2} in [one.get("data") for one in lines(mill)])
    steps = [one["data"] for one in lines(mill) if one.get("type") == "Step"]

    assert 2 == steps.count({"stumble": "stone"})
    assert {"n": 1} in steps
    row = mill.until(lambda rows: rows["main"]["state"] == "ready")["main"]
    assert row["pid"] != before
    assert any("exited with code 3" in line for line in mill.logs("main"))
    mill.until(lambda rows: rows["main"]["backlog"] == rows["main"]["in_flight"] == 0)


def test_job_in_hand_at_a_crash_is_done_by_the_next(mill: Place):
    """A stored request that was not answered comes again."""
    command = mill.start(
        "send",
        "main",
        "--job",
        "walk",
        "--data",
        '{"stumble": "root"}',
        "--wait",
        "--timeout",
        "40",
    )
    jobs = wait_for(lambda: [one for one in lines(mill) if one["kind"] == "job"][1:])
    assert "walk" == jobs[0]["name"]
    command.end()


def test_restart_and_stop_are_lines(mill: Place):
    """Its stdin is closed after `end`; it has its time to finish."""
    done = mill.run("restart", "main")
    assert 0 == done.code, done.err
    kinds = [one["kind"] for one in lines(mill)]
    assert "end" in kinds
    assert any("the end" in line for line in mill.logs("main"))
    assert 0 == mill.run("down").code
    assert "end" == lines(mill)[-1]["kind"]


def test_missing_program_fails_at_once_and_a_deaf_one_is_ended(cli: CliEnv):
    """The first is named by `up --wait`; the second has its grace, then signals end it as a stop."""
    topology = """
name: quarry
workers:
  absent: {command: [./absent.sh], stdio: jsonl}
  deaf: {command: [sh, -c, 'exec sleep 600'], stdio: jsonl, stop: {grace: 20s, drain: false}}
"""
    quarry = cli.place("quarry", {"topology.yaml": topology})
    done = quarry.run("up", "--wait")
    rows = quarry.until(lambda rows: rows["absent"]["state"] != "starting")

    assert 1 == done.code
    assert "'./absent.sh' cannot be started: No such file or directory" in done.err
    assert ("failed", 0) == (rows["absent"]["state"], rows["absent"]["restarts"])
    data = json.dumps({"text": "x" * 60_000})
    sent = quarry.tell("send", "deaf", "--type", "Step", "--data", data, "--count", "12")
    assert 0 == sent.code, sent.err
    assert 0 == quarry.run("down").code
    assert any("exited with code 0" in line for line in quarry.logs("deaf"))
    assert [] == [line for line in quarry.logs("deaf") if "ERROR" in line]
