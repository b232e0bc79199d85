"""Orphans of this process become its own children while it waits for one of them."""

import contextlib
from collections.abc import Iterator

from pbus.process.system.container_init import is_subreaper, set_subreaper

_users = 0
_before = False


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Be the parent of descendants whose parent ends within the block. Blocks may overlap.

    Raises:
        OSError: The system does not allow it.
    """
    global _users, _before  # noqa: PLW0603 - a setting of the whole process
    if _users == 0:
        _before = is_subreaper()
        set_subreaper(adopts=True)
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if _users == 0:
            set_subreaper(adopts=_before)
