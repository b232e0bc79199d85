"""Names on the bus: their form, and the names of replicas ("x.2" is a replica of the group "x")."""

import difflib
import re
from collections.abc import Iterable

from pbus.errors import UnknownNameError

MAX_NAME_LENGTH = 255
# What other addresses and patterns are made of: * is everyone, x@y a child of y, "," parts names on
# command lines, ? and [] stand in filters, / and \ in paths, $ and ` have shells run what follows.
_REFUSED = r"\x00-\x1f\x7f-\x9f*?\[\]@,/\\$`"
_INNER = rf"(?:[^\s{_REFUSED}]| )"
# Any text that is no address of another kind: x, a:b, Acme Bot, a UUID; or x.2 for a replica.
WORKER_NAME = re.compile(rf"[^\s.~\-{_REFUSED}](?:{_INNER}*[^\s.{_REFUSED}])?")


def group_of(name: str) -> str | None:
    """The group a replica belongs to: "x" for "x.2", None for a plain worker."""
    group, dot, number = name.rpartition(".")
    return group if dot and group and number.isascii() and number.isdigit() else None


def is_worker_name(name: str) -> bool:
    """Whether a worker may have a name: one line that any terminal shows, and no other address."""
    return (
        len(name) <= MAX_NAME_LENGTH
        and name.isprintable()
        and WORKER_NAME.fullmatch(name) is not None
    )


def replica_name(group: str, number: int) -> str:
    """The name of a replica: "x.2" for the group "x"."""
    return f"{group}.{number}"


def replica_number(name: str) -> int:
    """The number of a replica: 2 for "x.2"."""
    return int(name.rpartition(".")[2])


def names_of(worker: str) -> tuple[str, ...]:
    """All names that stand for a worker: its own, and its group's if it is a replica."""
    group = group_of(worker)
    return (worker,) if group is None else (worker, group)


def stands_for(name: str, worker: str) -> bool:
    """Whether a name stands for a worker: it is the worker's own, or its group's."""
    return name == worker or name == group_of(worker)


def with_groups(workers: Iterable[str]) -> set[str]:
    """The names of workers and of the groups that they are replicas of."""
    return {name for worker in workers for name in names_of(worker)}


def nearest_name(name: str, workers: Iterable[str]) -> str | None:
    """The worker or group whose name is most like a wrong one; None if none is like it."""
    found = difflib.get_close_matches(name, sorted(with_groups(workers)), n=1)
    return found[0] if found else None


def unknown_name(what: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error of a name that stands for nothing known, with the nearest known one.

    Args:
        what: The kind of thing that was named.
        name: The name as it was given.
        known: The names that there are; groups of replicas are added.
    """
    names = sorted(with_groups(known))
    return UnknownNameError(what, name, nearest_name(name, names), names)
