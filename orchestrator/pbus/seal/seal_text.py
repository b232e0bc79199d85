"""The parts of a seal: its mark, base64, and the bytes that it covers beside the data."""

import binascii
from typing import Literal

Kind = Literal["payload", "note", "stored", "lease", "activation", "record", "stats"]

OPEN, HIDDEN, LARGE = b"#", b"$", b"%"  # BLAKE2; AES-GCM: encrypted, authenticated only
ALSO = b"&"  # begins the seal of a further key, after the first one's
MARKS = frozenset({OPEN, HIDDEN, LARGE, ALSO})
SUFFIX_LENGTH = 28  # the mark, and the base64 of time and MAC or salt
TIME_BYTES = 4
BINARY_KINDS = frozenset({"payload"})  # which brokers carry as bytes


def place(kind: Kind, head: bytes, context: bytes) -> bytes:
    """The bytes that a seal covers beside the data; `head` is the mark and the time."""
    return b"%b%b%d:%b" % (kind.encode(), head, len(context), context)


def suffix(mark: bytes, packed: bytes) -> bytes:
    """The end of sealed data; `packed` is the time, and MAC or salt."""
    return mark + to_base64(packed)[:-1]


def to_base64(data: bytes) -> bytes:
    """Encode bytes as one line."""
    return binascii.b2a_base64(data, newline=False)


def from_base64(text: bytes) -> bytes | None:
    """None: it is none, or not as we write it; several texts may be decoded to the same bytes."""
    try:
        data = binascii.a2b_base64(text)
    except binascii.Error:
        return None
    return data if to_base64(data) == text else None
