"""The packages that pbus brings along are locked with hashes, and their licences are listed."""

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / ".ci" / "requirements.lock").read_text()
TABLE = (ROOT / ".github" / "DEPENDENCIES.md").read_text()


def runtime_requirements() -> dict[str, Requirement]:
    """All that an installation with every extra needs here, by name, however far down."""
    found: dict[str, Requirement] = {}
    pending = [("pbus-orchestrator", {"embedded-postgres", "mcap", "mcp", "otel", "uvloop"})]
    while pending:
        name, extras = pending.pop()
        for text in requires(name) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                continue
            key = canonicalize_name(requirement.name)
            if key not in found:
                found[key] = requirement
                pending.append((requirement.name, requirement.extras))
    return found


def locked() -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each locked package."""
    entries = re.split(r"^(?=[a-z])", LOCK, flags=re.MULTILINE)[1:]
    return {
        entry.partition("==")[0]: (
            re.split(r"[ ;]", entry.partition("==")[2])[0],
            entry.count("sha256:"),
        )
        for entry in entries
    }


@pytest.mark.parametrize("name", sorted(runtime_requirements()))
def test_dependency_is_locked_and_its_licence_listed(name: str):
    """Each has a version that pyproject.toml allows, a hash, and a row in the table of licences."""
    version, hashes = locked()[name]

    assert runtime_requirements()[name].specifier.contains(version)
    assert hashes > 0
    assert re.search(rf"^\|[^|]*\b{name}\b[^|]*\| [A-Z]", TABLE, flags=re.MULTILINE)


def test_everything_locked_has_hashes():
    """Pip refuses the file otherwise; so does this, and names the package."""
    assert {} == {name: entry for name, entry in locked().items() if entry[1] == 0}
