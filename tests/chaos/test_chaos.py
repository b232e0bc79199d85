"""A short run of `make chaos`."""

import pytest

from chaos.rounds import run_rounds

pytestmark = pytest.mark.cli


@pytest.mark.parametrize("seed", [7, 8])
def test_nothing_is_lost_or_left(seed: int):
    """Scaled, rolled, reloaded and killed at random: no lost job, no leftover, no wrong exit code."""
    run_rounds(seed, 1)
