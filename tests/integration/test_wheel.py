"""What `pip install` brings: the packages, and all that they need beside their modules."""

import subprocess
import sys
import zipfile
from pathlib import Path

from pbus_cli.input.examples import example_names

ROOT = Path(__file__).parents[2]


def test_wheel_is_whole(tmp_path: Path):
    """Both packages with their marks of types, their SQL and their examples, and nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert 0 == done.returncode, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    assert {"pbus", "pbus_cli", wheel.name.rsplit("-", 3)[0] + ".dist-info"} == {
        name.partition("/")[0] for name in names
    }
    carried = {
        str(path.relative_to(source))
        for source in (ROOT / "orchestrator", ROOT / "cli")
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set() == carried - names
    assert {
        f"pbus_cli/templates/{example}/{file.name}"
        for example in example_names()
        for file in (ROOT / "cli/pbus_cli/templates" / example).iterdir()
        if file.is_file()
    } <= names
    assert {"hello", "jobs", "voice"} <= {*example_names()}
