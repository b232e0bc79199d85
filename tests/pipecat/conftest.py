"""Tests against the real Pipecat, in an environment of their own: `make test-pipecat`."""

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_env import CliEnv

HERE = Path(__file__).parent
IS_THERE = importlib.util.find_spec("pipecat") is not None and (
    importlib.util.find_spec("pipecat.workers") is not None  # this folder has that name, too
)
collect_ignore_glob = [] if IS_THERE else ["test_*.py"]
if IS_THERE:
    with warnings.catch_warnings(action="ignore"):  # what it uses of Python is its own affair
        importlib.import_module("pipecat.workers.runner")


def pytest_report_header() -> str:
    """Say so where these tests are left out."""
    found = "here" if IS_THERE else "not here, where Pipecat is not installed: `make test-pipecat`"
    return f"tests/pipecat: {found}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave Pipecat's own warnings alone."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="module")
def cli() -> Iterator[CliEnv]:
    """Where a module's projects live."""
    with CliEnv() as cli:
        yield cli
