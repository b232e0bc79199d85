"""Names that workers may have."""

import pytest

from pbus.errors import WorkerNameError
from pbus.workers.core import check_name


@pytest.mark.parametrize("name", ["x", "_x", "x-1", "X_y", "x.1", "x.12"])
def test_names_that_can_be_addressed(name):
    """Letters, digits, underscores, dashes; a number behind a dot for a replica."""
    assert name == check_name(name)


@pytest.mark.parametrize("name", ["1x", "x y", "x.", "x.y", "x@y", "x\n", "é", 7, "-x"])
def test_names_that_cannot(name):
    """Other names are refused."""
    with pytest.raises(WorkerNameError):
        check_name(name)
