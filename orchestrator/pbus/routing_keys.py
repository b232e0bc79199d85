"""Keys of messages: their form, and the replica that each belongs to.

Rendezvous hashing: a key belongs to the replica with the largest hash of both. The hash is BLAKE2b of 8
bytes over ``KEY LF REPLICA`` in UTF-8, so it is the same in each process, on each host and in any language.
When replicas come or go, only the keys of these move.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b

MAX_KEY_BYTES = 256
CLEAN_KEY = r"^[^\x00-\x1f\x7f-\x9f]+\Z"  # one line without control characters

_is_clean = re.compile(CLEAN_KEY).match


def key_problem(key: object) -> str | None:
    """The reason why a value is no key; None for a key."""
    if not isinstance(key, str):
        return f"a key is text, not {type(key).__name__}"
    if not key:
        return "a key is not empty"
    if not _is_clean(key):
        return "a key has no control characters"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "a key is text that UTF-8 can carry"
    return (
        f"a key has at most {MAX_KEY_BYTES} bytes, not {size:,}" if size > MAX_KEY_BYTES else None
    )


def owner_of(key: str, replicas: Iterable[str]) -> str | None:
    """The replica that a key belongs to; None where there is none."""
    return max(replicas, key=lambda replica: (_weight(key, replica), replica), default=None)


def _weight(key: str, replica: str) -> bytes:
    return blake2b(f"{key}\n{replica}".encode(), digest_size=8).digest()
