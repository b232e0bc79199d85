"""Sizes in bytes in a topology file."""

import re

SIZE_PATTERN = r"^([0-9]{1,16}) ?(?:([kKmMgGtT])i?)?[bB]?$"
EXPECTED_SIZE = "a size from 1KB to 1TB like 256MB or 1GiB, or a whole number of bytes"

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_LEAST, _MOST = 1024, 1024**4


def parse_size(text: str) -> int | None:
    """The bytes of a size; units are powers of 1024, as in docker compose.

    Returns:
        None if the text is no size, or out of bounds.
    """
    found = re.fullmatch(SIZE_PATTERN, text)
    if found is None:
        return None
    size = int(found[1]) * _UNITS[(found[2] or "").lower()]
    return size if _LEAST <= size <= _MOST else None
