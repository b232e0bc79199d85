"""`metrics:` of a topology: told while a project runs, ready when `up --wait` returns, gone with it."""

import json
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.cli_env import CliEnv, wait_for

pytestmark = pytest.mark.cli

WORKERS = """
from pbus import BaseWorker, job

class Cook(BaseWorker):
    @job(name="cook")
    async def cook(self, request):
        return {"dish": "soup"}
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text; 0 while nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def told(port: int, name: str, **labels: str) -> float | None:
    """The value of a series."""
    for family in text_string_to_metric_families(get(port, "/metrics")[1]):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return one.value
    return None


def test_metrics_are_told_while_it_runs(cli: CliEnv):
    """Health, readiness and counts; a second project cannot have the port, and says so."""
    port = free_port()
    topology = (
        f"name: counted\nmetrics: {{listen: {port}}}\nworkers: {{cook: {{worker: 'w:Cook'}}}}\n"
    )
    place = cli.place("counted", {"topology.yaml": topology, "w.py": WORKERS})
    place.up()

    assert (200, "ok\n") == get(port, "/livez")
    assert (200, "ready\n") == get(port, "/readyz")
    assert 404 == get(port, "/")[0]
    place.tell("send", "cook", "--job", "cook", "--wait")
    labels = {"requester": "cli-*", "worker": "cook", "job": "cook", "outcome": "completed"}
    wait_for(lambda: told(port, "pbus_jobs_total", **labels) == 1.0)
    assert 1.0 == told(port, "pbus_worker_ready", worker="cook")

    other = cli.place(
        "other", {"topology.yaml": topology.replace("counted", "other"), "w.py": WORKERS}
    )
    done = other.start("up", "--plain").done()
    assert 1 == done.code
    assert f"cannot listen on 127.0.0.1:{port} for metrics" in done.err
    assert "Traceback" not in done.err

    config = json.loads(place.run("config", "--json").out)
    assert {"host": "127.0.0.1", "port": port} == config["metrics"]
    place.tell("down")
    assert 0 == get(port, "/livez")[0]
