"""`pbus ps` and `pbus logs` of a running project, and that it keeps nothing unasked."""

import re
import socket

import psutil
import pytest

from support.cli_env import Place, wait_for

pytestmark = pytest.mark.cli

KEYS = [
    "name", "state", "ready", "active", "runner", "host", "pid", "uptime_s", "restarts",
    "cpu_percent", "rss_bytes", "received", "sent", "lost", "queued", "refused", "error",
    "silent_s", "handler", "children",
]  # fmt: skip


def test_json_has_its_keys(sample: Place):
    """The documented keys and no others; what they say is true of the processes."""
    sample.until(
        lambda rows: all(row["rss_bytes"] for row in rows.values())
    )  # measured each second
    done = sample.run("ps", "--json")

    # Other tests of the sample may have sent what is not sealed, which is said beside the table.
    remarks = [line for line in done.err.splitlines() if "were not sealed" not in line]
    assert (0, []) == (done.code, remarks)
    assert ["project", "bus", "workers"] == list(done.json)
    assert ("sample", sample.record()["url"]) == (done.json["project"], done.json["bus"])
    workers = done.json["workers"]
    assert [KEYS] * 6 == [list(row) for row in workers]
    assert ["clerk", "post.1", "post.2", "guest", "bell", "hand"] == [
        row["name"] for row in workers
    ]
    for row in workers:
        assert row["name"] == psutil.Process(row["pid"]).environ()["PBUS_WORKER"]
        assert ("ready", True, 0) == (row["state"], row["ready"], row["lost"])
        assert (socket.gethostname(), row["name"] != "guest") == (row["host"], row["active"])
        assert row["uptime_s"] > 0
        assert row["rss_bytes"] > 500_000


def test_programs_join_or_not(sample: Place):
    """A command is ready when it runs; one that joins when it is registered, as a worker is."""
    rows = sample.rows()

    assert (True, True, None) == tuple(rows["bell"][key] for key in ("ready", "active", "runner"))
    assert (True, True) == tuple(rows["hand"][key] for key in ("ready", "active"))
    assert rows["hand"]["runner"].startswith("runner-")
    assert sample.ask("hand", "wave")["to"].startswith("cli-")
    wait_for(lambda: ["ding bell", "dong"] == sorted(sample.logs("bell"))[:2])


def test_messages_are_counted(sample: Place):
    """What a worker got since shows in its row."""
    before = sample.rows()["clerk"]["received"]
    sample.tell("send", "clerk", "--text", "x", "--count", "20")

    sample.until(
        lambda rows: rows["clerk"]["received"] >= before + 20 and rows["clerk"]["queued"] == 0
    )


def test_table_is_for_people(sample: Place):
    """Without --json a heading and a line a worker; --watch goes on until Ctrl-C."""
    watch = sample.start("ps", "--json", "--watch", "--ready")
    done = sample.run("ps")

    heading, *lines = done.out.splitlines()
    columns = [name for name in heading.split() if name != "RESTARTS"]  # where there were any
    assert ["NAME", "STATE", "PID", "UPTIME", "CPU", "MEMORY", "IN", "OUT"] == columns
    assert ["clerk", "ready"] == lines[0].split()[:2]
    assert "ready, inactive" in lines[3]
    wait_for(lambda: watch.out.count("\n") >= 2)
    watched = watch.end()
    assert 130 == watched.code
    assert [6, 6] == [len(one["workers"]) for one in watched.objects[:2]]


def test_logs_choose_workers(sample: Place):
    """Of all workers, of one, of replicas by their common name, and the newest -n lines."""
    everyone = sample.run("logs", "-n", "100000")  # other tests' lines among them
    prefixes = {line.split()[0] for line in everyone.out.splitlines()}
    post = sample.tell("logs", "post", "bell")

    assert (0, 0) == (everyone.code, post.code)
    assert {"clerk", "post.1", "post.2", "guest", "bell", "hand"} == prefixes
    assert {"post.1", "post.2", "bell"} == {line.split()[0] for line in post.out.splitlines()}
    assert 1 == len(sample.tell("logs", "-n", "1").out.splitlines())
    assert re.search(r"^bell +\* started, pid \d+$", post.out, re.MULTILINE)


def test_logs_follow_workers(sample: Place):
    """-f prints what comes from now on, until Ctrl-C."""
    follower = sample.start("logs", "-f", "-n", "1", "post")
    wait_for(lambda: follower.out)  # the newest line is there: what comes next is new
    sample.tell("send", "post.2", "--text", "followed")

    follower.until("heard text 'followed'")
    assert 130 == follower.end().code
    assert 2 == follower.out.count("\n")


def test_unknown_worker_is_refused(sample: Place):
    """The nearest name is named."""
    done = sample.tell("logs", "clrk")

    assert (2, "") == (done.code, done.out)
    assert "did you mean 'clerk'?" in done.err


def test_nothing_is_kept_unasked(sample: Place):
    """Where messages are delivered at most once, these verbs say so."""
    for verb in (("dlq", "ls"), ("purge", "clerk")):
        done = sample.tell(*verb)
        assert (1, True) == (done.code, "delivery: at-least-once" in done.err)
    assert "backlog" not in sample.rows()["clerk"]
