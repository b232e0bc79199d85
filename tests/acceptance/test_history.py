"""Logs, events and runs of a project that does not run any more, however it ended."""

import json
import signal

from support.cli_env import CliEnv, wait_for

TOPOLOGY = """
name: past
workers:
  a: {command: [sh, -c, "echo of a; echo $$ > a.pid; exec sleep 600"]}
  b: {command: [sh, -c, "echo of b; exit 3"], restart: {policy: on-failure, max: 2}}
"""


def test_the_past_is_told_after_down_and_after_a_kill(cli: CliEnv):
    """Two runs, the second one's supervisor is killed; another project with the same workers is apart."""
    place = cli.place("past", {"topology.yaml": TOPOLOGY})
    twin = cli.place("twin", {"topology.yaml": TOPOLOGY})
    refused = twin.tell("events")
    assert (3, "") == (refused.code, refused.out)
    for _ in range(2):
        assert 0 == place.run("up", "-d").code
        wait_for(lambda: '"failed"' in place.tell("events", "--since", "1m", "--json").out)
        supervisor = place.supervisor()
        if not place.tell("runs", "--json").json["runs"][1:]:
            assert 0 == place.run("down").code
    running = place.tell("runs", "--json").json["runs"]
    assert ["stopped", "running"] == [run["outcome"] for run in running]
    wait_for(lambda: place.tell("events", "--run", "2", "--grep", "failed").out)
    supervisor.send_signal(signal.SIGKILL)
    wait_for(lambda: not cli.processes())

    first, second = place.tell("runs", "--json").json["runs"]
    assert (1, "stopped", 0, "SIGTERM") == (
        first["number"], first["outcome"], first["code"], first["reason"],
    )  # fmt: skip
    assert (2, "crashed", None, None) == (
        second["number"], second["outcome"], second["code"], second["ended"],
    )  # fmt: skip
    assert [(2, 1), (2, 1)] == [(run["workers"], run["restarts"]) for run in (first, second)]
    assert ["stopped", "crashed"] == [
        line.split()[5 if line.split()[3] == "-" else 6]
        for line in place.tell("runs").out.splitlines()[1:]
    ]

    events = place.tell("events", "--json")
    failed = [one for one in map(json.loads, events.out.splitlines()) if one["state"] == "failed"]
    assert ["b", "b"] == [one["worker"] for one in failed]
    assert "past is not running" in events.err
    path = next(cli.state.glob("pbus/past-*/logs/events.log"))
    path.write_bytes(path.read_bytes() + b"\xff foreign\n")
    text = place.tell("events")
    said = text.err.count(f"damaged lines of {path} were left out: 1")
    assert (1, 1) == (text.out.count("--- run 2 began "), said)

    lines = [json.loads(line) for line in place.tell("logs", "--json").out.splitlines()]
    assert {1, 2} == {line["run"] for line in lines}
    assert sorted(line["time"] for line in lines) == [line["time"] for line in lines]
    plain = place.tell("logs", "-t").out.splitlines()
    mark = next(n for n, line in enumerate(plain) if line.startswith("--- run 2 began "))
    assert "(run 1 stopped) ---" in plain[mark]
    assert [line["run"] for line in lines].index(2) == mark
    assert "a | of a\n" == place.tell("logs", "a", "--run", "2", "--grep", "^of").out
    assert "" == place.tell("logs", "--until", "2026-01-01").out

    for words in (("--run", "3"), ("--grep", "("), ("--since", "soon"), ("-f", "--run", "1")):
        assert 2 == place.tell("logs", *words).code
    assert [] == twin.tell("runs", "--json").json["runs"]
