"""What documents say of the tree is so."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = (ROOT, ROOT / "orchestrator" / "pbus", ROOT / "cli" / "pbus_cli")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
DOCUMENTS = ("ARCHITECTURE.md", "README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md")
PATH = re.compile(r"`([\w./-]*\w\.(?:py|sql|lua|md|toml|yaml)|(?:tests|configs|cli|bus)/[\w./-]+)`")
USERS = {"topology.yaml", "workers.py", "test_workers.py", "current/topology.yaml"}  # their own


def found(path: str) -> list[Path]:
    """The files and folders of a path as documents write it."""
    return [root / path for root in ROOTS if (root / path).exists()]


def tree() -> Iterator[str]:
    """The paths in ARCHITECTURE.md's picture of the tree."""
    (picture,) = re.findall(r"```text\n(.*?)```", ARCHITECTURE, flags=re.DOTALL)
    parents: list[tuple[int, str]] = []
    for line in picture.splitlines():
        indent = len(line) - len(line.lstrip())
        names = re.split(r"\s{2,}", line.strip())[0].split(", ")
        if not all(re.fullmatch(r"[\w./]+(/|\.py)", name) for name in names):
            continue  # a description goes on
        while parents and parents[-1][0] >= indent:
            parents.pop()
        above = parents[-1][1] if parents else ""
        yield from (above + name for name in names)
        if names[0].endswith("/"):
            parents.append((indent, above + names[0]))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_paths_exist(name: str) -> None:
    """Each path that a document names is there."""
    paths = set(PATH.findall((ROOT / name).read_text())) - USERS
    assert [] == [path for path in sorted(paths) if not found(path)]


def test_pictures_are_small_and_whole() -> None:
    """Each picture of the README is there, readable, of less than 150 KB, and loads nothing."""
    paths = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(paths) >= 4
    for path in paths:
        text = (ROOT / path).read_text()
        assert ET.fromstring(text).tag.endswith("svg"), path
        assert len(text) < 150_000, path
        assert not re.search(r"<script|href|url\((?!#)|@import", text), path


def test_pictured_paths_exist() -> None:
    """Each path of the picture is there."""
    paths = list(tree())
    assert "orchestrator/pbus/bus/stream/" in paths
    assert [] == [path for path in paths if not (ROOT / path).exists()]


def test_named_places_have_the_names() -> None:
    """Each file that ARCHITECTURE.md leads to has what is to be changed there."""
    (section,) = re.findall(r"## Where to change what\n(.*?)\n## ", ARCHITECTURE, flags=re.DOTALL)
    places = re.findall(r"`([\w./]+\.py)` \(((?:`\w+`(?:, )?)+)\)", section)
    assert len(places) >= 6
    for path, names in places:
        text = found(path)[0].read_text()
        assert [] == [name for name in re.findall(r"\w+", names) if name not in text], path
