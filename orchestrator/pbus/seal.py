"""Seals of all data in a broker: a keyed MAC, or encryption.

Sealed data is the data, a mark (`#`) and 27 characters of base64: four bytes of time (Unix seconds)
and sixteen of keyed BLAKE2b (RFC 7693) over kind, context, mark, time and data. The key of each MAC is derived
from the user's key and the channel, so that nothing sealed for one channel or purpose passes for
another. Encrypted data (mark `$`) is AES-256-GCM (NIST SP 800-38D) with a tag of 16 bytes, which covers
kind, context, mark and time, too: no other MAC. The base64 has the time and sixteen bytes of salt; each
process encrypts under a key made of the channel's and its salt. Base64 costs more than the cipher:
payloads, which no broker takes for text, go without.
"""

import base64
import binascii
import functools
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

from pbus.errors import BackendMissingError, BusKeyError, MessageDecodeError, SealError

Kind = Literal["payload", "note", "stored", "lease", "activation", "record"]

MIN_KEY_LENGTH = 16  # characters; fewer can be guessed
MAX_KEYS_LENGTH = 4096  # of all; workers get them in a variable, which holds 128 KiB
FRESH_S = 300  # older payloads are replays; receivers remember streams for longer than that

_MAC_BYTES = 16
_TIME_BYTES = 4
_OPEN, _HIDDEN = b"#", b"$"  # begins the seal of data that all can read, that holders can
_SUFFIX = 28  # the mark and the base64 of time and MAC
_FRESH_KINDS = frozenset({"payload", "note"})
_BINARY_KINDS = frozenset({"payload"})  # which brokers carry as bytes
_KEY = re.compile(r"[!-+\--~]+")  # printable ASCII, no space, no comma
_SALT_BYTES = 16
_NONCE_BYTES = 12  # a counter, under a key that one process uses
_TAG_BYTES = 16
_ROOM_BYTES = 320 * 1024  # holds a payload of usual messages
_MOST_NONCES = 1 << 32  # then another salt

_KEY_NEEDED = (
    "it is sealed: this process needs the key of the channel (`bus.key`, or connect(key=…))"
)

_Clock = Callable[[], float]


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


def is_sealed(data: bytes) -> bool:
    """Whether data looks sealed, by any key."""
    return data[-_SUFFIX : 1 - _SUFFIX] in {_OPEN, _HIDDEN}


class Seal(Protocol):
    """Seals and opens data of one channel."""

    def close(self, kind: Kind, data: bytes, context: bytes = b"") -> bytes:
        """Seal data.

        Args:
            kind: The purpose; open() needs the same.
            data: Any bytes.
            context: The place of the data; open() needs the same. Not part of the result.
        """
        ...

    def open(self, kind: Kind, data: bytes, context: bytes = b"") -> bytes:
        """Open sealed data.

        Raises:
            SealError: It was not sealed by a known key for this kind and context, or it is older than
                FRESH_S where age matters.
        """
        ...

    def explain(self, error: MessageDecodeError, data: bytes) -> MessageDecodeError:
        """The error for data that could not be decoded, if a seal may be the reason."""
        ...


class _NoSeal:
    """The seal of a channel without a key: data as it is."""

    def explain(self, error: MessageDecodeError, data: bytes) -> MessageDecodeError:
        """An error that names the missing key, for data that looks sealed."""
        return SealError(_KEY_NEEDED) if is_sealed(data) else error

    def close(self, kind: Kind, data: bytes, context: bytes = b"") -> bytes:
        """The data."""
        del kind, context
        return data

    def open(self, kind: Kind, data: bytes, context: bytes = b"") -> bytes:
        """The data."""
        del kind, context
        return data


NO_SEAL: Final[Seal] = _NoSeal()


def seal_of(key: str | None, channel: str, *, encrypt: bool = False) -> Seal:
    """Make the seal of a configuration.

    Args:
        key: One or several, see `parse_keys`; None for no seal.
        channel: Of the bus.
        encrypt: Whether to encrypt the data, too.

    Raises:
        BusKeyError: The key cannot be used, or encryption is asked for without one.
        BackendMissingError: Encryption needs a package that is not installed.
    """
    if key:
        return KeySeal(parse_keys(key), channel, encrypt=encrypt)
    if encrypt:
        raise BusKeyError("there is none, and encryption needs one")
    return NO_SEAL


class KeySeal:
    """Seals and opens for one channel, by keys.

    Args:
        keys: The first one seals, all open, so that keys can be changed without a pause.
        channel: Of the bus.
        encrypt: Whether to encrypt the data, too. open() takes both.
        clock: Unix seconds.

    Raises:
        BusKeyError: Encryption is asked for and the package `cryptography` is not there.
    """

    def __init__(
        self,
        keys: Sequence[str],
        channel: str,
        *,
        encrypt: bool = False,
        clock: _Clock = time.time,
    ) -> None:
        self._holders = [_Key(key, channel) for key in keys]
        self._clock = clock
        self._cipher = _Cipher(self._holders[0].secret) if encrypt else None

    def close(self, kind: Kind, data: bytes, context: bytes = b"") -> bytes:
        """Seal data; see Seal."""
        now = int(self._clock()).to_bytes(_TIME_BYTES, "big")
        if self._cipher is None or kind == "note":  # which holds no more than names of channels
            return data + self._holders[0].suffix(kind, context, _OPEN + now, data)
        return self._cipher.hide(kind, context, now, data)

    def open(self, kind: Kind, data: bytes, context: bytes = b"") -> bytes:
        """Open sealed data; see Seal."""
        if not is_sealed(data):
            raise SealError("it is not sealed: its sender has no key")
        suffix = data[-_SUFFIX:]
        packed = _from_base64(suffix[1:] + b"=")
        if packed is None:
            raise SealError("its seal is broken")
        at = packed[:_TIME_BYTES]
        is_hidden = suffix.startswith(_HIDDEN)
        body = b"" if is_hidden else data[:-_SUFFIX]  # each copy of a large payload costs
        for holder in self._holders:
            if is_hidden:
                plain = holder.shown(kind, context, packed, data)
            else:
                seal = holder.suffix(kind, context, _OPEN + at, body)
                plain = body if hmac.compare_digest(suffix, seal) else None
            if plain is not None:
                self._check_age(kind, at)
                return plain
        raise SealError("its seal is of another key, or it was changed on its way")

    def explain(self, error: MessageDecodeError, data: bytes) -> MessageDecodeError:
        """The same error: data that was opened and is broken was sealed so."""
        del data
        return error

    def _check_age(self, kind: Kind, at: bytes) -> None:
        if kind in _FRESH_KINDS:
            age = self._clock() - int.from_bytes(at, "big")
            if abs(age) > FRESH_S:
                raise SealError(f"it was sealed {age:.0f} s ago: a replay, or clocks differ")


class _Key:
    """One key on one channel, with a prepared MAC for each kind."""

    def __init__(self, key: str, channel: str) -> None:
        master = hashlib.blake2b(key.encode(), digest_size=32, person=b"pbus key").digest()
        self.secret = hashlib.blake2b(
            channel.encode("utf-8", "surrogateescape"), key=master, digest_size=32
        ).digest()
        self._prepared: dict[str, Any] = {}

    def suffix(self, kind: Kind, context: bytes, head: bytes, data: bytes) -> bytes:
        """The seal of data; `head` is the mark and the time."""
        prepared = self._prepared.get(kind)
        if prepared is None:
            prepared = self._prepared[kind] = hashlib.blake2b(
                key=self.secret, digest_size=_MAC_BYTES, person=kind.encode()
            )
        mac = prepared.copy()
        mac.update(_place(head, context))
        mac.update(data)
        return head[:1] + _to_base64(head[1:] + mac.digest())[:-1]

    def shown(self, kind: Kind, context: bytes, packed: bytes, sealed: bytes) -> bytes | None:
        """The data of what was encrypted under this key; `packed` is its time and salt.

        Raises:
            SealError: This process lacks the package that decrypts.
        """
        at, salt = packed[:_TIME_BYTES], packed[_TIME_BYTES:]
        try:
            algorithm, broken = _algorithm(self.secret, salt)
        except BackendMissingError as error:
            raise SealError(f"it is encrypted, and this process cannot decrypt: {error}") from error
        body: memoryview | bytes | None = memoryview(sealed)[:-_SUFFIX]
        if kind not in _BINARY_KINDS:
            body = _from_base64(sealed[:-_SUFFIX])
        if body is None:
            return None
        nonce, hidden = body[:_NONCE_BYTES], memoryview(body)[_NONCE_BYTES:]
        try:
            data: bytes = algorithm.decrypt(nonce, hidden, _label(kind, context, at))
        except broken:
            return None
        return data


class _Cipher:
    """Encrypts what one process writes, under a key made of the channel's and a random salt."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._room = memoryview(bytearray(_ROOM_BYTES))  # fresh memory costs more than the cipher
        self._begin()

    def hide(self, kind: Kind, context: bytes, now: bytes, data: bytes) -> bytes:
        """Nonce and ciphertext, the mark, time and salt."""
        # A forked process: the counter goes on elsewhere, too.
        if self._pid != os.getpid() or self._count >= _MOST_NONCES:
            self._begin()
        self._count += 1
        nonce = self._count.to_bytes(_NONCE_BYTES, "big")
        hidden = self._encrypted(nonce, data, _label(kind, context, now))
        seal = _HIDDEN + _to_base64(now + self._salt)[:-1]
        if kind in _BINARY_KINDS:
            return b"".join((nonce, hidden, seal))
        return _to_base64(nonce + hidden) + seal

    def _encrypted(self, nonce: bytes, data: bytes, label: bytes) -> bytes | memoryview:
        """Ciphertext and tag; where that is possible in a place that the next call uses again."""
        size = len(data) + _TAG_BYTES
        if size > _ROOM_BYTES or not hasattr(self._algorithm, "encrypt_into"):
            hidden: bytes = self._algorithm.encrypt(nonce, data, label)
            return hidden
        place = self._room[:size]
        self._algorithm.encrypt_into(nonce, data, label, place)
        return place

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._salt = os.urandom(_SALT_BYTES)
        self._algorithm, _ = _algorithm(self._secret, self._salt)
        self._count = 0


def _place(head: bytes, context: bytes) -> bytes:
    """The bytes that a seal covers beside kind and data; `head` is the mark and the time."""
    return b"%b%d:%b" % (head, len(context), context)


def _to_base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


def _from_base64(text: bytes) -> bytes | None:
    """None: it is none, or not as we write it; several texts may be decoded to the same bytes."""
    try:
        data = binascii.a2b_base64(text)
    except binascii.Error:
        return None
    return data if _to_base64(data) == text else None


def _label(kind: Kind, context: bytes, at: bytes) -> bytes:
    return kind.encode() + _place(_HIDDEN + at, context)


@functools.lru_cache(maxsize=1024)  # one a sending process
def _algorithm(secret: bytes, salt: bytes) -> tuple[Any, tuple[type[Exception], ...]]:
    """The cipher of a salt, and what it raises where data is not its own."""
    try:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - few need it
        from cryptography.hazmat.primitives.ciphers import aead  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise BackendMissingError("encrypted", "cryptography", "cryptography") from error
    key = hashlib.blake2b(salt, key=secret, digest_size=32, person=b"pbus cipher").digest()
    return aead.AESGCM(key), (InvalidTag, ValueError)
