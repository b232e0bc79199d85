"""Keys as users write them."""

import base64
import os
import re

from pbus.errors import BusKeyError

MIN_KEY_LENGTH = 16  # characters; fewer can be guessed
MAX_KEYS_LENGTH = 4096  # of all; workers get them in a variable, which holds 128 KiB
_KEY = re.compile(r"[!-+\--~]+")  # printable ASCII, no space, no comma


def parse_keys(text: str) -> tuple[str, ...]:
    """Split a text into keys, which are separated by commas; the first one seals.

    Raises:
        BusKeyError: One of them is too short, or has characters that keys do not have; or all
            together are longer than a variable should be.
    """
    if len(text) > MAX_KEYS_LENGTH:
        raise BusKeyError(f"{len(text):,} characters are too many: {MAX_KEYS_LENGTH:,} at most")
    keys = tuple(key.strip() for key in text.split(","))
    for key in keys:
        if len(key) < MIN_KEY_LENGTH:
            raise BusKeyError(
                f"a key needs {MIN_KEY_LENGTH} characters or more: one has {len(key)}"
            )
        if not _KEY.fullmatch(key):
            raise BusKeyError("a key has other characters than ASCII letters, digits and signs")
    return keys


def new_key() -> str:
    """A random key of 256 bits."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
