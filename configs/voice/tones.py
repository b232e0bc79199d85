"""Speech without a microphone: each character is a tone of 20 ms, so that text survives as audio."""

import array
import math

RATE = 8_000  # samples a second
SAMPLES = 160  # of a frame: 20 ms
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,:'+"
_FIRST = 6  # oscillations of the first character's tone in a frame
_LOUDNESS = 12_000
_TURN = 2 * math.pi / SAMPLES


def _tone(oscillations: int) -> bytes:
    wave = (_LOUDNESS * math.sin(_TURN * oscillations * at) for at in range(SAMPLES))
    return array.array("h", map(round, wave)).tobytes()


_TONES = {character: _tone(_FIRST + at) for at, character in enumerate(CHARACTERS)}
SILENCE = bytes(2 * SAMPLES)  # ends an utterance


def speak(text: str) -> list[bytes]:
    """The frames of an utterance; characters without a tone are left out."""
    return [*(_TONES[character] for character in text.lower() if character in _TONES), SILENCE]


def hear(frame: bytes) -> str:
    """The character of a frame; "" for silence."""
    samples = array.array("h", frame)
    if max(map(abs, samples), default=0) < _LOUDNESS // 4:
        return ""
    return max(
        CHARACTERS, key=lambda character: _energy(samples, _FIRST + CHARACTERS.index(character))
    )


def _energy(samples: "array.array[int]", oscillations: int) -> float:
    """How much of one tone is in a frame (Goertzel's algorithm)."""
    factor = 2 * math.cos(_TURN * oscillations)
    last = before = 0.0
    for sample in samples:
        last, before = sample + factor * last - before, last
    return last * last + before * before - factor * last * before
