"""Every topology that users copy is right."""

import os
import re
import sys
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Place

pytestmark = pytest.mark.cli

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.y*ml"))
_YAML_BLOCK = re.compile(r"^```ya?ml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def copy_of(cli: CliEnv, folder: Path) -> Place:
    """A copy of a folder of topologies, made once."""
    copy = cli.folder / folder.name
    return Place(cli, copy) if copy.exists() else cli.place(folder.name, folder)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_is_valid(cli: CliEnv, path: Path, monkeypatch: pytest.MonkeyPatch):
    """`pbus validate` finds nothing wrong with it, and its worker classes are there."""
    folders = [
        str(Path(sys.executable).parent),
        cli.environ["PATH"],
    ]  # as in an activated environment
    monkeypatch.setitem(cli.environ, "PATH", os.pathsep.join(folders))
    done = copy_of(cli, path.parent).tell("validate", path.name, "--json")

    assert 0 == done.code, done.err
    for worker in done.json["workers"]:
        if worker["worker"]:
            module, _, name = worker["worker"].partition(":")
            source = (path.parent / f"{module}.py").read_text()
            assert f"class {name}(" in source


def test_readme_topology_is_valid(cli: CliEnv):
    """The first topology of the README is right as it stands."""
    blocks = _YAML_BLOCK.findall((ROOT / "README.md").read_text())
    if not blocks:
        pytest.skip("the README shows no topology yet")
    workers = (ROOT / "configs" / "quickstart" / "workers.py").read_text()
    files = {"topology.yaml": blocks[0], "workers.py": workers}
    done = cli.place("readme", files).tell("validate")

    assert (0, "") == (done.code, done.err)
    assert blocks[0].count("\n") <= 12
