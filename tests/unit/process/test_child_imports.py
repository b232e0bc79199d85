"""The program of a worker loads nothing that only its supervisor needs."""

import subprocess
import sys

SUPERVISORS = {"psutil", "importlib.resources", "tempfile", "shutil", "yaml", "typer", "rich"}
CODE = "import sys, pbus.process.child; print(*sys.modules)"


def test_child_loads_no_module_of_the_supervisor() -> None:
    """Each start of a worker pays for what its program imports."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = set(done.stdout.split())

    assert "pbus.runner" in loaded
    assert set() == loaded & SUPERVISORS
