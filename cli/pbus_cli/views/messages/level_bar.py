"""Bytes as readers see them: by their size, and audio by how loud it is."""

import array
import base64
import binascii
import math
import re
import sys
from typing import Final

from pbus_cli.views.figures import short_bytes

AUDIO: Final = frozenset({"audio", "pcm", "samples"})  # fields with signed 16-bit samples
_CELLS: Final = 8
_STEPS: Final = "▁▂▃▄▅▆▇█"
_FULL_SCALE: Final = 32768
_FLOOR_DB: Final = -60.0  # what is quieter looks like silence
_PEAKS: Final = 64  # samples of a cell that are looked at
_LEAST: Final = 128  # characters: what is shorter may be a word
_BASE64: Final = re.compile(rb'"([A-Za-z0-9+/]{%d,}={0,2})(?:"|$)' % _LEAST)
_LOOKED_AT: Final = 256
_KINDS: Final = (re.compile(rb"[a-z]"), re.compile(rb"[A-Z]"), re.compile(rb"[0-9]"))


def bytes_text(raw: bytes, *, is_audio: bool) -> str:
    """The size of bytes in base64, with the level of audio.

    Args:
        raw: As it travelled, quotes included.
        is_audio: They are samples.
    """
    text = raw.strip(b'"').rstrip(b"=")
    size = short_bytes(len(text) * 3 // 4).strip()
    bar = level_bar(_decoded(raw.strip(b'"'))) if is_audio else ""
    return f"{size} {bar}".rstrip()


def level_bar(audio: bytes) -> str:
    """The loudness of audio from its begin to its end, from -60 dB to full scale; "" for none.

    Args:
        audio: Signed 16-bit little-endian samples.
    """
    samples = array.array("h", audio[: len(audio) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    if len(samples) < _CELLS:
        return ""
    width = len(samples) / _CELLS
    cells = (samples[int(cell * width) : int((cell + 1) * width)] for cell in range(_CELLS))
    return "".join(map(_step, cells))


def _step(samples: "array.array[int]") -> str:
    peak = max(map(abs, samples[:: max(1, len(samples) // _PEAKS)]))
    if not peak:
        return _STEPS[0]
    share = 1 - 20 * math.log10(peak / _FULL_SCALE) / _FLOOR_DB
    return _STEPS[min(len(_STEPS) - 1, max(0, int(share * len(_STEPS))))]


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def without_bytes(raw: bytes) -> bytes:
    """JSON with its long texts in base64 replaced by their size; other long texts stay."""
    return _BASE64.sub(_size_of, raw)


def _size_of(found: re.Match[bytes]) -> bytes:
    text = found[1]
    begin = text[:_LOOKED_AT]
    is_bytes = all(kind.search(begin) for kind in _KINDS) or not begin.strip(b"A")
    return f"({bytes_text(text, is_audio=False)})".encode() if is_bytes else found[0]
