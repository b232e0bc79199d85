"""Homes and the projects in them; nothing of either is left when a module is done."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_env import CliEnv, Place


@pytest.fixture(scope="module")
def cli() -> Iterator[CliEnv]:
    """Where a module's projects live."""
    with CliEnv() as cli:
        yield cli


@pytest.fixture(scope="session")
def sample() -> Iterator[Place]:
    """A project that runs for all modules; tests leave it as they found it."""
    with CliEnv() as cli:
        place = cli.place("sample", Path(__file__).parent / "sample")
        (place.folder / "hall").mkdir()
        place.up()
        yield place
