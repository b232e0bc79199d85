"""Seeded mutations of real payloads."""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

MAX_BYTES = 200_000  # of most; HUGE_BYTES of one in some thousands
HUGE_BYTES = 5_000_000
BAIT = "bait"  # a module in the project's folder: to import it leaves a file behind

_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_NUMBERS = [
    b"0", b"-1", b"-0", b"1e308", b"1e-320", b"9000000000000000000", b"9223372036854775807",
    b"-9223372036854775808", b"18446744073709551616", b"1" * 400, b"0.5", b"NaN", b"Infinity",
    b"1.8e18", b"4294967296", b"inf", b"-inf",
]  # fmt: skip
_TEXTS = [
    "", "\0", "\x1b]52;c;cHdu\x07", "\x1b[2J", "\u202egnp.exe", "\r\n", "\x9b31m", "$(touch caught)",
    "../../etc/passwd", "*", "a|b|c", "x" * 3000, "\U0001f600" * 9, "\udcff", f"{BAIT}.Bait",
    f"{BAIT}:Bait", BAIT, "os.system", "BusDataMessage", "clerk", "__class__", "{}", "\ufeff",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63, 2**64, 2**200, -(2**63), 1.8e18, 1e308, float("nan"), float("inf"),
    [], {}, [[]], {"": None}, [None] * 50, {"type": f"{BAIT}.Bait"}, {"__reduce__": ["os.system", "true"]},
]  # fmt: skip


class Mutator:
    """Makes strange bytes out of real ones; the same for the same seed.

    Args:
        seed: Of all its choices.
        samples: Real payloads, to splice with.
    """

    def __init__(self, seed: int, samples: Sequence[bytes]) -> None:
        self.random = random.Random(seed)
        self._samples = samples or [b"{}"]
        self._ways: list[Callable[[bytes], bytes]] = [
            self._flip, self._flip, self._cut, self._insert, self._repeat, self._splice,
            self._number, self._number, self._number, self._json, self._json, self._json,
            self._text, self._nest, self._packed,
        ]  # fmt: skip

    def mutate(self, data: bytes) -> bytes:
        """Other bytes, most of them near to these."""
        for _ in range(self.random.choice((1, 1, 1, 2, 5))):
            data = self.random.choice(self._ways)(data)
        if self.random.random() < 1 / 20_000:
            return data + b"x" * HUGE_BYTES
        return data[:MAX_BYTES]

    def number(self) -> bytes:
        """An extreme number."""
        return self.random.choice(_NUMBERS)

    def text(self) -> str:
        """Strange text."""
        return self.random.choice(_TEXTS)

    def _at(self, data: bytes) -> int:
        return self.random.randint(0, len(data))

    def _flip(self, data: bytes) -> bytes:
        flipped = bytearray(data or b"\0")
        for _ in range(self.random.choice((1, 1, 2, 8))):
            flipped[self.random.randrange(len(flipped))] ^= 1 << self.random.randrange(8)
        return bytes(flipped)

    def _cut(self, data: bytes) -> bytes:
        start, end = sorted((self._at(data), self._at(data)))
        return self.random.choice((data[:start], data[end:], data[:start] + data[end:]))

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self.random.randbytes(self.random.choice((1, 2, 8, 100))) + data[at:]

    def _repeat(self, data: bytes) -> bytes:
        start, end = sorted((self._at(data), self._at(data)))
        return data[:end] + data[start:end] * self.random.choice((1, 2, 20)) + data[end:]

    def _splice(self, data: bytes) -> bytes:
        other = self.random.choice(self._samples)
        return data[: self._at(data)] + other[self._at(other) :]

    def _number(self, data: bytes) -> bytes:
        found = _NUMBER.search(data, self._at(data)) or _NUMBER.search(data)
        if found is None:
            return data + self.number()
        start, end = found.span()
        return data[:start] + self.number() + data[end:]

    def _text(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self.text().encode("utf-8", "surrogateescape") + data[at:]

    def _nest(self, data: bytes) -> bytes:
        depth = self.random.choice((10, 500, 20_000))
        opening = self.random.choice((b"[", b'{"a":', b"\x91", b"\x81\xa1a"))
        at = self._at(data)
        return data[:at] + opening * depth + data[at:]

    def _packed(self, data: bytes) -> bytes:
        """The same as MessagePack, or MessagePack's own headers."""
        try:
            return msgspec.msgpack.encode([json.loads(line) for line in data.split(b"\n")])
        except (ValueError, OverflowError, RecursionError):
            head = self.random.choice((
                b"\xdd\xff\xff\xff\xff",
                b"\xdb\x7f\xff\xff\xff",
                b"\xc1",
                b"\x98",
            ))
            return head + data

    def _json(self, data: bytes) -> bytes:
        """A value somewhere inside becomes one of another type."""
        lines = data.split(b"\n")
        at = self.random.randrange(len(lines))
        try:
            root = [json.loads(lines[at])]
        except (ValueError, RecursionError):
            return self._number(data)
        self._swap(root)
        lines[at] = json.dumps(root[0]).encode()
        return b"\n".join(lines)

    def _swap(self, node: Any) -> None:
        while True:
            places = list(node) if isinstance(node, dict) else range(len(node))
            place = self.random.choice(places)
            inner = node[place]
            if isinstance(inner, (dict, list)) and inner and self.random.random() < 0.8:
                node = inner
                continue
            if isinstance(node, dict) and self.random.random() < 0.2:
                node[self.text()] = node.pop(place)
            else:
                node[place] = self.random.choice((self.text(), self.random.choice(_VALUES)))
            return
