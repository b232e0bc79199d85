"""`limits` in the file, by the command."""

import pytest

from support.cli_env import CliEnv

pytestmark = pytest.mark.cli

FILES = {
    "topology.yaml": "workers: {api: {worker: 'workers:Api', limits: {age: 2s, memory: 1GB}}}\n",
    "workers.py": "from pbus import BaseWorker\nclass Api(BaseWorker): pass\n",
}


def test_recycled_is_said(cli: CliEnv):
    """`ps` counts the restart, `logs` and the events say why."""
    place = cli.place("limited", FILES)
    place.up()
    place.until(lambda rows: rows["api"]["restarts"] > 0 and rows["api"]["state"] == "ready")
    assert "recycled: it has run for " in place.run("logs", "api").out
    assert 0 == place.run("down").code
