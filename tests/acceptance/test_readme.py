"""What the README shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli_env import CliEnv

pytestmark = pytest.mark.cli

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(marked: str) -> str:
    """The first block of Python that holds these words."""
    return next(text for text in BLOCKS if marked in text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where somebody has copied the workers to."""
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


def test_command_takes_part(home: CliEnv, folder: Path):
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
    place = home.place("shown", files)
    done = place.run("up", "--plain")

    assert 0 == done.code
    assert "Hello, Ada!" in done.out
