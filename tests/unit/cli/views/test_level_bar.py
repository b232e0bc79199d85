"""Bytes by their size, audio by its level."""

import array
import base64
import math
import random

import pytest

from pbus_cli.views.messages.level_bar import bytes_text, level_bar, without_bytes
from pbus_cli.views.traffic import Passed, Widths, body_text, traffic_text


def tone(*levels: float, width: int = 80) -> bytes:
    """Audio of these levels (1 is full scale), each for so many samples."""
    samples = [
        int(32767 * level * math.cos(math.pi * number))
        for level in levels
        for number in range(width)
    ]
    return array.array("h", samples).tobytes()


@pytest.mark.parametrize(
    ("levels", "bar"),
    [
        ((0,) * 8, "▁▁▁▁▁▁▁▁"),
        ((1,) * 8, "████████"),
        ((0, 0, 0, 0, 1, 1, 1, 1), "▁▁▁▁████"),
        ((0.0001, 0.002, 0.01, 0.03, 0.1, 0.2, 0.5, 1), "▁▁▃▄▆▇██"),
    ],
)
def test_levels_rise(levels: tuple[float, ...], bar: str):
    """In steps of 7.5 dB from -60 dB, from the begin to the end."""
    assert bar == level_bar(tone(*levels))


@pytest.mark.parametrize("audio", [b"", b"\x01", b"\x00\x80" * 7])
def test_too_little_has_no_level(audio: bytes):
    """A bar of eight cells needs eight samples."""
    assert "" == level_bar(audio)


@pytest.mark.parametrize("audio", [b"\x00\x80" * 8, b"\x00\x80" * 100 + b"\x01"])
def test_the_loudest_sample_fits(audio: bytes):
    """The lowest number of 16 bits has no positive twin; an odd byte is left out."""
    assert "████████" == level_bar(audio)


def test_damaged_audio_has_its_size():
    """What is no base64 is not decoded."""
    assert "6 B" == bytes_text(b'"!!!!!!!!"', is_audio=True)
    assert "640 B ▁▁▁▁▁▁▁▁" == bytes_text(b'"' + base64.b64encode(bytes(640)), is_audio=True)


SOME = base64.b64encode(random.Random(4).randbytes(960)).decode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f'"{SOME}"', "(960 B)"),
        (f'{{"a":"{SOME}","b":["{SOME}"]}}', '{"a":(960 B),"b":[(960 B)]}'),
        (f'"{"A" * 1280}"', "(960 B)"),
        (f'"{SOME[:500]}', "(375 B)"),  # cut
        (f'"{SOME[:100]}"', f'"{SOME[:100]}"'),
        (f'"{"x" * 400}"', f'"{"x" * 400}"'),
        (f'"{"3fa9" * 64}"', f'"{"3fa9" * 64}"'),
        (f'"{"Hello world 1 " * 30}"', f'"{"Hello world 1 " * 30}"'),
    ],
)
def test_bytes_are_told_from_text(text: str, shown: str):
    """Wherever they stand; words, numbers and short keys stay."""
    assert shown == without_bytes(text.encode()).decode()


def passed(own: str, **fields: bool) -> Passed:
    """A message of a type of a user's own."""
    body = f'{{"type":"Chunk","source":"a","target":"b","id":"1","time":1.5,{own}}}'.encode()
    return Passed(1.5, "Chunk", "a", "b", body, len(body), **fields)


def test_a_message_of_bytes_is_short():
    """Audio of any type has its level, other bytes their size, the rest is as it was."""
    audio = base64.b64encode(tone(*[0.5] * 8)).decode()
    text = body_text(passed(f'"n":3,"pcm":"{audio}","blob":"{SOME}","audio":"none"').body)

    assert 'n=3 pcm=1.2 KB ████████ blob=(960 B) audio="none"' == text


def test_what_reached_no_process_looks_different():
    """By its arrow and in words, so also without colours."""
    there, lost = (
        traffic_text(passed('"n":1', is_reached=is_reached), Widths())
        for is_reached in (True, False)
    )

    assert (1, 0, False) == (there.count("→"), there.count("↛"), "reached no process" in there)
    assert (0, 1, True) == (lost.count("→"), lost.count("↛"), "reached no process" in lost)
    assert there.index("→") == lost.index("↛")
    assert traffic_text(passed('"n":1', has_body=False), Widths()).endswith(" B")
