"""`up --watch` by the command."""

import pytest

from support.cli_env import CliEnv

pytestmark = pytest.mark.cli

WORKERS = "from pbus import BaseWorker\nclass Api(BaseWorker): pass\n"
FILES = {
    "topology.yaml": "workers: {api: {worker: 'workers:Api'}}\n",
    "workers.py": WORKERS,
}


def test_detached_project_follows_its_code(cli: CliEnv):
    """A change restarts; a broken one is shown and waited out; `down` ends all."""
    place = cli.place("watched", FILES)
    assert 0 == place.run("up", "--watch", "--wait").code
    code = place.folder / "workers.py"
    code.write_text("import nothing_of_that_name\n" + WORKERS)
    place.until(lambda rows: rows["api"]["state"] == "backoff")
    assert "waits for a change of its files" in place.run("ps").out
    code.write_text(WORKERS + "# mended\n")
    place.until(lambda rows: rows["api"]["state"] == "ready")
    assert "changed: workers.py" in place.run("logs", "api").out
    assert 0 == place.run("down").code


def test_one_process_cannot_be_watched(cli: CliEnv):
    """With `backend: memory` there is nothing to restart."""
    files = {**FILES, "topology.yaml": "bus: {backend: memory}\n" + FILES["topology.yaml"]}
    done = cli.place("in-one", files).run("up", "--watch")
    assert 2 == done.code
    assert "which cannot load them again" in done.err
