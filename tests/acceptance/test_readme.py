"""What the README shows works as it stands there."""

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from support.cli_env import CliEnv, wait_for

pytestmark = pytest.mark.cli

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(marked: str) -> str:
    """The first block of Python that holds these words."""
    return next(text for text in BLOCKS if marked in text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder with a copy of the workers."""
    (tmp_path / "workers.py").write_text(block("# workers.py"))
    return tmp_path


def test_tests_pass(folder: Path):
    """The tests shown are of the workers shown, and pass."""
    (folder / "test_workers.py").write_text(block("# test_workers.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_workers.py"],
        cwd=folder, capture_output=True, text=True, timeout=50,
    )  # fmt: skip

    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_one_process_runs(folder: Path):
    """The workers shown greet each other in one process and end."""
    program = "from workers import Greeter, MainAgent\n" + block("runner = WorkerRunner()  # an")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=50
    )

    assert "greeter is active\nHello, Ada!\n" == done.stdout, done.stderr


def test_command_takes_part(cli: CliEnv, folder: Path):
    """A program started by `command` joins as shown, and is asked like any worker."""
    topology = f"""
name: shown
workers:
  main: {{worker: 'workers:MainAgent'}}
  greeter: {{command: ['{sys.executable}', greeter.py], joins: true}}
"""
    files = {
        "topology.yaml": topology,
        "workers.py": block("# workers.py"),
        "greeter.py": block('os.environ["PBUS_URL"]'),
    }
    place = cli.place("shown", files)
    done = place.run("up", "--plain")

    assert 0 == done.code
    assert "Hello, Ada!" in done.out


def fetched(port: int, path: str) -> tuple[int, Any]:
    """What a web server answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_programs_ask_workers(cli: CliEnv):
    """The web server and the script shown have a worker answer; a worker that is down is an error."""
    topology = "name: shop\nworkers:\n  greeter: {worker: 'workers:Greeter'}\n"
    workers = block("# workers.py")
    place = cli.place("shop", {"topology.yaml": topology, "workers.py": workers})
    place.up()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    web = subprocess.Popen(
        [sys.executable, "-c", block("# web.py").replace("8080", str(port))],
        cwd=cli.folder, env=cli.environ,
    )  # fmt: skip
    try:
        wait_for(lambda: web.poll() is not None or is_served(port))
        assert (200, {"text": "Hello, Ada!"}) == fetched(port, "/Ada")
        script = subprocess.run(
            [sys.executable, "-c", block("# script.py")],
            cwd=cli.folder, env=cli.environ, capture_output=True, text=True, timeout=50,
        )  # fmt: skip
        assert "Hello, Ada!\nHello, Bob!\n" == script.stdout, script.stderr
        assert 0 == place.tell("stop", "greeter").code
        code, body = fetched(port, "/Ada")
        assert (503, True) == (code, "greeter" in body["error"])
    finally:
        web.terminate()
        web.wait(20)


def is_served(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
