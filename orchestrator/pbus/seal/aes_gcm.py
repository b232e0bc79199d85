"""AES-256-GCM (NIST SP 800-38D) under keys of one process each, with a counter as nonce.

A key is made of the channel's, a purpose and a random salt. What is encrypted has its place as
associated data. What is only authenticated is the associated data itself, and its place is what is
encrypted: so no large payload is copied to stand beside its place.
"""

import functools
import hashlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from pbus.seal.seal_text import (
    BINARY_KINDS,
    HIDDEN,
    LARGE,
    SUFFIX_LENGTH,
    TIME_BYTES,
    Kind,
    from_base64,
    place,
    suffix,
    to_base64,
)

_SALT_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16
_ROOM_BYTES = 320 * 1024  # holds a payload of usual messages
_MOST_NONCES = 1 << 32  # then another salt
_PURPOSES = {HIDDEN: b"pbus cipher", LARGE: b"pbus gmac"}

Buffer: TypeAlias = bytes | memoryview

_forks = 0  # between the first process and this one


def _note_fork() -> None:
    global _forks  # noqa: PLW0603 - the process is global
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)


class _Period(NamedTuple):
    """A salt, its cipher, and the nonces that are left; of one process."""

    process: tuple[int, int]
    salt: bytes
    algorithm: Any
    nonces: Iterator[int]


class GcmWriter:
    """Seals what one process writes. Threads may share it, forked processes do not.

    Args:
        secret: The channel's key.
        mark: HIDDEN or LARGE: what it is for.
    """

    def __init__(self, secret: bytes, mark: bytes) -> None:
        self._secret = secret
        self._mark = mark
        self._period: _Period | None = None
        self._rooms: list[memoryview] = []  # fresh memory costs more than the cipher

    def hide(self, kind: Kind, context: bytes, at: bytes, data: bytes) -> bytes:
        """Encrypt data; `at` is the time.

        Returns:
            Nonce, ciphertext and tag, and the suffix with time and salt.
        """
        period, nonce = self._next()
        end = suffix(self._mark, at + period.salt)
        covered = place(kind, self._mark + at, context)
        size = len(data) + _TAG_BYTES
        if size > _ROOM_BYTES or not hasattr(period.algorithm, "encrypt_into"):
            return _joined(kind, nonce, period.algorithm.encrypt(nonce, data, covered), end)
        try:
            room = self._rooms.pop()
        except IndexError:  # the first call, or another thread has it
            room = memoryview(bytearray(_ROOM_BYTES))
        period.algorithm.encrypt_into(nonce, data, covered, room[:size])
        sealed = _joined(kind, nonce, room[:size], end)
        self._rooms.append(room)
        return sealed

    def cover(self, kind: Kind, context: bytes, at: bytes, data: bytes) -> bytes:
        """Authenticate data of a kind that brokers carry as bytes; `at` is the time.

        Returns:
            The data, nonce, encrypted place and tag, and the suffix with time and salt.
        """
        period, nonce = self._next()
        hidden = period.algorithm.encrypt(nonce, place(kind, self._mark + at, context), data)
        return b"".join((data, nonce, hidden, suffix(self._mark, at + period.salt)))

    def _next(self) -> tuple[_Period, bytes]:
        """The current key, and a nonce that was never used with it.

        Both are of one value, and a count is one step: two threads never get the same.
        """
        while True:
            period = self._period
            if period is None or period.process != _this_process():
                period = self._period = self._begin()
            number = next(period.nonces, None)
            if number is not None:
                return period, number.to_bytes(_NONCE_BYTES, "big")
            self._period = None

    def _begin(self) -> _Period:
        salt = os.urandom(_SALT_BYTES)
        algorithm, _ = _algorithm(self._secret, salt, _PURPOSES[self._mark])
        nonces = iter(range(1, _MOST_NONCES + 1))
        return _Period(_this_process(), salt, algorithm, nonces)


def shown(secret: bytes, kind: Kind, context: bytes, packed: bytes, sealed: bytes) -> bytes | None:
    """Decrypt data that was encrypted under a channel's key; None: it was not, or it was changed.

    Args:
        secret: The channel's key.
        kind: See Seal.open().
        context: Likewise.
        packed: Time and salt.
        sealed: The data with its suffix.
    """
    at, salt = packed[:TIME_BYTES], packed[TIME_BYTES:]
    body: Buffer | None = memoryview(sealed)[:-SUFFIX_LENGTH]
    if kind not in BINARY_KINDS:
        body = from_base64(sealed[:-SUFFIX_LENGTH])
    if body is None:
        return None
    nonce, hidden = body[:_NONCE_BYTES], memoryview(body)[_NONCE_BYTES:]
    key = secret, salt, _PURPOSES[HIDDEN]
    return _decrypted(key, nonce, hidden, place(kind, HIDDEN + at, context))


def uncovered(
    secret: bytes, kind: Kind, context: bytes, packed: bytes, sealed: bytes
) -> bytes | None:
    """Return data that was authenticated; see shown()."""
    if kind not in BINARY_KINDS:
        return None
    at, salt = packed[:TIME_BYTES], packed[TIME_BYTES:]
    covered = place(kind, LARGE + at, context)
    end = len(sealed) - SUFFIX_LENGTH
    begin = end - _NONCE_BYTES - len(covered) - _TAG_BYTES
    if begin < 0:
        return None
    nonce, hidden = sealed[begin : begin + _NONCE_BYTES], sealed[begin + _NONCE_BYTES : end]
    data = sealed[:begin]
    found = _decrypted((secret, salt, _PURPOSES[LARGE]), nonce, hidden, data)
    return data if found == covered else None


def _this_process() -> tuple[int, int]:
    """Differs in each process that was forked, also where a process id returns."""
    return os.getpid(), _forks


def _joined(kind: Kind, nonce: bytes, hidden: Buffer, end: bytes) -> bytes:
    if kind in BINARY_KINDS:
        return b"".join((nonce, hidden, end))
    return to_base64(nonce + hidden) + end


def _decrypted(
    key: tuple[bytes, bytes, bytes], nonce: Buffer, hidden: Buffer, associated: bytes
) -> bytes | None:
    algorithm, broken = _algorithm(*key)
    try:
        data: bytes = algorithm.decrypt(nonce, hidden, associated)
    except broken:
        return None
    return data


@functools.lru_cache(maxsize=1024)  # one a sending process
def _algorithm(
    secret: bytes, salt: bytes, purpose: bytes
) -> tuple[Any, tuple[type[Exception], ...]]:
    """The cipher of a salt, and what it raises where data is not its own."""
    aes_gcm, errors = load_cipher()
    key = hashlib.blake2b(salt, key=secret, digest_size=32, person=purpose).digest()
    return aes_gcm(key), errors


def load_cipher() -> tuple[Any, tuple[type[Exception], ...]]:
    """Load the cipher; on first use else: 10 ms and 8 MB that a process without large data is spared.

    Returns:
        Its class, and what it raises where data is not its own.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers import aead  # noqa: PLC0415

    return aead.AESGCM, (InvalidTag, ValueError)
