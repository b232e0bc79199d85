"""Names of workers, and of the groups that replicas belong to."""

import pytest

from pbus.names import (
    group_of,
    names_of,
    nearest_name,
    replica_name,
    replica_number,
    stands_for,
    with_groups,
)


@pytest.mark.parametrize(
    ("name", "group"),
    [("x.1", "x"), ("x.12", "x"), ("x", None), ("x.y", None), ("x.", None), ("a.b.3", "a.b")],
)
def test_group_of_names(name: str, group: str | None):
    """Digits behind the last dot make a replica, nothing else does."""
    assert group == group_of(name)
    assert (name,) == names_of(name)[:1]
    assert (group is not None) == (len(names_of(name)) > 1)


@pytest.mark.parametrize(
    ("name", "worker", "expected"),
    [
        ("x", "x", True),
        ("x", "x.2", True),
        ("x.2", "x.2", True),
        ("x", "xy.2", False),
        ("x.2", "x", False),
        ("x.1", "x.12", False),
        ("x", "x.y", False),
    ],
)
def test_name_stands_for_worker(name: str, worker: str, expected: bool):
    """A worker's own name does, and that of its group; a shared beginning does not."""
    assert expected == stands_for(name, worker)


def test_numbers_and_groups():
    """Replicas are counted, and their groups are names, too."""
    assert ("x.12", 12) == (replica_name("x", 12), replica_number("x.12"))
    assert {"x", "x.1", "x.2", "y"} == with_groups(["x.1", "x.2", "y"])


@pytest.mark.parametrize(("name", "nearest"), [("indxer", "indexer"), ("bok", "book"), ("q", None)])
def test_nearest_name(name: str, nearest: str | None):
    """A group may be meant where only its replicas are known."""
    assert nearest == nearest_name(name, ["indexer.1", "indexer.2", "book"])
