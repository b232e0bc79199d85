"""Names that workers may have."""

import msgspec
import pytest

from pbus.errors import WorkerNameError
from pbus.names import group_of, is_worker_name
from pbus.structs import WorkerName
from pbus.workers.core import check_name
from support.odd_names import ODD_NAMES

_decode = msgspec.json.Decoder(WorkerName).decode


@pytest.mark.parametrize(
    "name", ["x", "_x", "x-1", "X_y", "x.1", "x.12", "x~", "x-", "x" * 255, *ODD_NAMES]
)
def test_names_that_can_be_addressed(name):
    """Any text on one line; a number behind a dot for a replica. The wire agrees."""
    assert name == check_name(name) == _decode(msgspec.json.encode(name))


@pytest.mark.parametrize(
    "name",
    ["", " ", "*", "~x", "-x", ".x", "x.", " x", "x ", "x\n", "x\ny", "x\ty", "\u2028", "x\u2028y", "x\x85y",
     "x\x00", "x\x7f", "a*b", "a?", "[a]", "x@y", "a,b", "a/b", "..", "a\\b", "$x", "q$(touch x)", "`x`", "x" * 256, 7, None, b"x"],
)  # fmt: skip
def test_names_that_cannot(name):
    """Addresses of another kind, patterns, paths, lists, and what no terminal shows."""
    with pytest.raises(WorkerNameError):
        check_name(name)
    if isinstance(name, str):
        with pytest.raises(msgspec.ValidationError):
            _decode(msgspec.json.encode(name))


@pytest.mark.parametrize("name", ["x\u202ey", "half \ud83d", "\ue000"])
def test_what_is_not_printable_is_no_name(name):
    """It would be another name to a reader."""
    assert not is_worker_name(name)


@pytest.mark.parametrize(
    ("name", "group"),
    [("x", None), ("x.1", "x"), ("a:b.12", "a:b"), ("Acme Bot.3", "Acme Bot"), ("x.\u00b2", None),
     ("x.\u0663", None), ("x.y", None), ("x.1a", None), (".5", None), ("1.5", "1"), ("x.", None)],
)  # fmt: skip
def test_groups_of_replicas(name, group):
    """A number in plain digits behind the last dot; nothing else is one."""
    assert group == group_of(name)
