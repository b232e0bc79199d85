"""A short run of `make fuzz`."""

import pytest

from fuzz.runs import fuzz

pytestmark = pytest.mark.cli


@pytest.mark.parametrize("broker", ["redis-stored", pytest.param("pgmq", marks=pytest.mark.pgmq)])
def test_no_bytes_disturb_a_project(broker: str):
    """Mutated payloads on every channel, in every key and table: all go on, nothing is imported."""
    print(fuzz(broker, 11, count=4000, seconds=10))
