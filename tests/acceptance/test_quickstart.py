"""The quickstart does real work, and goes on when parts of it are killed."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from support.cli_env import CliEnv, Place, Rows, wait_for

pytestmark = pytest.mark.cli

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart"
KILLED = "was killed by SIGKILL"
NAMES = ["librarian", "indexer.1", "indexer.2"]


@pytest.fixture(scope="module")
def quickstart(cli: CliEnv) -> Place:
    """A copy of it, running; it indexes the standard library."""
    place = cli.place("quickstart", QUICKSTART)
    place.up()
    return place


def search(place: Place) -> list[dict[str, Any]]:
    """Ranked hits."""
    hits: list[dict[str, Any]] = place.ask("librarian", "search", {"query": "priority queue"})[
        "hits"
    ]
    return hits


def all_ready(rows: Rows) -> bool:
    """Whether every worker of the quickstart is."""
    return list(rows) == NAMES and all(row["ready"] for row in rows.values())


def test_killed_indexer_loses_nothing(quickstart: Place):
    """Kill -9 of an indexer at work: its unfinished work is done by the others."""
    wait_for(lambda: any("indexed " in line for line in quickstart.logs("librarian")))
    psutil.Process(quickstart.rows()["indexer.1"]["pid"]).kill()
    response = quickstart.ask("librarian", "search", {"query": "priority queue"})
    said = next(line for line in quickstart.logs("librarian") if "indexing " in line)

    assert f"indexing {response['files']} files" in said
    assert response["hits"]


def test_search_answers_ranked(quickstart: Place):
    """A search waits for the first full index, then answers with places, best first."""
    hits = search(quickstart)

    assert [["file", "line", "snippet", "score"]] * len(hits) == [list(hit) for hit in hits]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert {"heapq.py", "sched.py"} <= {hit["file"] for hit in hits}
    assert "priority queue" in hits[0]["snippet"]
    logs = quickstart.logs("librarian")
    assert any("ready to search" in line for line in logs)
    assert any("(50 %)" in line or "(5" in line for line in logs)


def test_killed_worker_returns(quickstart: Place):
    """Kill -9 of an indexer shows in ps, it is started again, and search still answers."""
    before = quickstart.until(all_ready)
    restarts = before["indexer.1"]["restarts"] + 1
    kills = quickstart.logs("indexer.1").count(KILLED) + 1
    psutil.Process(before["indexer.1"]["pid"]).kill()

    after = quickstart.until(
        lambda rows: all_ready(rows) and rows["indexer.1"]["restarts"] == restarts
    )
    assert before["indexer.1"]["pid"] != after["indexer.1"]["pid"]
    assert ["librarian", "indexer.2"] == [n for n in NAMES if before[n]["pid"] == after[n]["pid"]]
    assert kills == quickstart.logs("indexer.1").count(KILLED)
    assert search(quickstart)


def test_killed_broker_returns(quickstart: Place):
    """Kill -9 of the Valkey: it is started again, workers reconnect, ps is right again."""
    before = quickstart.until(all_ready)
    killed = quickstart.child("valkey-server")
    killed.kill()

    wait_for(lambda: not killed.is_running())
    after = quickstart.until(all_ready)
    assert killed.pid != quickstart.child("valkey-server").pid
    for key in ("pid", "restarts", "runner"):
        assert {n: r[key] for n, r in before.items()} == {n: r[key] for n, r in after.items()}
    assert search(quickstart)
