"""Seals of all data in a broker: a keyed MAC, or encryption.

Sealed data is the data, a mark and 27 characters of base64: four bytes of time (Unix seconds) and
sixteen more. With the mark `#` these are keyed BLAKE2b (RFC 7693) over kind, context, mark, time and
data. The key of each MAC is derived from the user's key and the channel, so that nothing sealed for one
channel or purpose passes for another. Payloads of LARGE_BYTES and more have the mark `%` and are
authenticated by AES-256-GCM, which is ten times as quick there; before the mark are nonce and tag.
Encrypted data (mark `$`) is AES-256-GCM, too, with a tag that covers kind, context, mark and time: no
other MAC. With both, the sixteen bytes are a salt: each process writes under a key made of the
channel's and its salt. Base64 costs more than the cipher: payloads, which no broker takes for text, go
without.

While keys are changed, leases are sealed with each key of their process (mark `&`), so that processes that
have only one of them respect the names of the others.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from pbus.errors import BusKeyError, MessageDecodeError, OtherKeyError, SealError
from pbus.seal.aes_gcm import GcmWriter, shown, uncovered
from pbus.seal.key_text import parse_keys
from pbus.seal.seal_text import (
    ALSO,
    BINARY_KINDS,
    HIDDEN,
    LARGE,
    MARKS,
    OPEN,
    SUFFIX_LENGTH,
    TIME_BYTES,
    Kind,
    from_base64,
    place,
    suffix,
)

FRESH_S = 300  # older payloads are replays; receivers remember streams for longer than that
LARGE_BYTES = 4096  # from here on AES-GCM saves more than the 8 MB of its library cost

_MAC_BYTES = 16
_MOST_KEYS = 8  # that seal one lease
_SHARED_KINDS = frozenset({"lease"})
_FRESH_KINDS = frozenset({"payload", "note"})
_KEY_NEEDED = (
    "it is sealed: this process needs the key of the channel (`bus.key`, or connect(key=…))"
)

_Clock = Callable[[], float]


def is_sealed(data: bytes) -> bool:
    """Whether data looks sealed, by any key."""
    return data[-SUFFIX_LENGTH : 1 - SUFFIX_LENGTH] in MARKS


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
        self._encrypts = encrypt
        self._writer = GcmWriter(self._holders[0].secret, HIDDEN if encrypt else LARGE)

    def close(self, kind: Kind, data: bytes, context: bytes = b"") -> bytes:
        """Seal data; see Seal."""
        now = int(self._clock()).to_bytes(TIME_BYTES, "big")
        sealed = self._closed(kind, data, context, now)
        if kind in _SHARED_KINDS:
            for holder in self._holders[1:_MOST_KEYS]:
                mac = holder.mac(kind, ALSO + now, context, sealed)
                sealed += suffix(ALSO, now + mac)
        return sealed

    def _closed(self, kind: Kind, data: bytes, context: bytes, now: bytes) -> bytes:
        if self._encrypts and kind != "note":  # which holds no more than names of channels
            return self._writer.hide(kind, context, now, data)
        if len(data) >= LARGE_BYTES and kind in BINARY_KINDS:
            return self._writer.cover(kind, context, now, data)
        mac = self._holders[0].mac(kind, OPEN + now, context, data)
        return data + suffix(OPEN, now + mac)

    def open(self, kind: Kind, data: bytes, context: bytes = b"") -> bytes:
        """Open sealed data; see Seal."""
        if kind in _SHARED_KINDS and data[-SUFFIX_LENGTH : 1 - SUFFIX_LENGTH] == ALSO:
            return self._open_shared(kind, data, context)
        return self._open(kind, data, context)

    def _open_shared(self, kind: Kind, data: bytes, context: bytes) -> bytes:
        """Open what each key of its sender seals, by whichever is known here.

        Each seal covers those before it: what is left is ours where any of them is.
        """
        is_ours = False
        for _ in range(_MOST_KEYS):
            if data[-SUFFIX_LENGTH : 1 - SUFFIX_LENGTH] != ALSO:
                break
            is_ours = is_ours or self._has_sealed(kind, data, context)
            data = data[:-SUFFIX_LENGTH]
        try:
            return self._open(kind, data, context)
        except SealError:
            if not is_ours:
                raise
            if data[-SUFFIX_LENGTH : 1 - SUFFIX_LENGTH] != OPEN:
                raise OtherKeyError("it is encrypted with another key of the channel") from None
            return data[:-SUFFIX_LENGTH]

    def _has_sealed(self, kind: Kind, data: bytes, context: bytes) -> bool:
        packed = from_base64(data[1 - SUFFIX_LENGTH :] + b"=")
        return packed is not None and any(
            holder.checked(kind, context, packed, data, ALSO) is not None
            for holder in self._holders
        )

    def _open(self, kind: Kind, data: bytes, context: bytes) -> bytes:
        if not is_sealed(data):
            raise SealError("it is not sealed: its sender has no key")
        end = data[-SUFFIX_LENGTH:]
        packed = from_base64(end[1:] + b"=")
        opened = _OPENERS.get(end[:1])
        if packed is None or opened is None:
            raise SealError("its seal is broken")
        for holder in self._holders:
            plain = opened(holder, kind, context, packed, data)
            if plain is not None:
                self._check_age(kind, packed[:TIME_BYTES])
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

    def mac(self, kind: Kind, head: bytes, context: bytes, data: bytes) -> bytes:
        """The BLAKE2b MAC of data; `head` is the mark and the time."""
        prepared = self._prepared.get(kind)
        if prepared is None:
            prepared = self._prepared[kind] = hashlib.blake2b(
                key=self.secret, digest_size=_MAC_BYTES, person=kind.encode()
            )
        mac = prepared.copy()
        mac.update(place(kind, head, context))
        mac.update(data)
        return mac.digest()

    def checked(
        self, kind: Kind, context: bytes, packed: bytes, sealed: bytes, mark: bytes = OPEN
    ) -> bytes | None:
        """Return data with a BLAKE2b MAC; see shown()."""
        data = sealed[:-SUFFIX_LENGTH]
        mac = self.mac(kind, mark + packed[:TIME_BYTES], context, data)
        return data if hmac.compare_digest(packed[TIME_BYTES:], mac) else None

    def shown(self, kind: Kind, context: bytes, packed: bytes, sealed: bytes) -> bytes | None:
        """Decrypt data; see the function."""
        return shown(self.secret, kind, context, packed, sealed)

    def uncovered(self, kind: Kind, context: bytes, packed: bytes, sealed: bytes) -> bytes | None:
        """Return data that AES-GCM authenticates; see the function."""
        return uncovered(self.secret, kind, context, packed, sealed)


_OPENERS = {OPEN: _Key.checked, HIDDEN: _Key.shown, LARGE: _Key.uncovered}
