"""A short run of `make chaos`."""

import pytest

from chaos.rounds import run_rounds

pytestmark = pytest.mark.cli


def test_nothing_is_lost_or_left():
    """Scaled, rolled, reloaded and killed at random: no lost job, no leftover, no wrong exit code."""
    run_rounds(7, 2, steps=3)
