"""Ids that are unique across processes, forks and restarts, at the cost of a counter."""

import itertools
import os
import random
import secrets

_ALPHABET_BITS = 48  # 2**48 prefixes: 10,000 processes collide with a chance of 2e-7


class _Ids:
    """A random prefix of the process, and a counter; a forked child has its own."""

    def __init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        self.prefix = f"{secrets.randbits(_ALPHABET_BITS):012x}-"
        self.next_number = itertools.count(1).__next__
        # Not the generator that programs seed to repeat what they do.
        self.random_bits = random.Random(secrets.randbits(256)).getrandbits  # noqa: S311 - no secret


_ids = _Ids()
os.register_at_fork(after_in_child=_ids.reseed)


def new_id() -> str:
    """A unique id for a message, a job or a stream: 12 hex digits, a dash, a number."""
    return f"{_ids.prefix}{_ids.next_number()}"


def random_digits(count: int) -> str:
    """So many random hex digits, at a tenth of the cost of new_token(); no secret."""
    return f"{_ids.random_bits(4 * count):0{count}x}"


def new_token(bits: int = 48) -> str:
    """A random name for a process, a session or a runner: bits/4 hex digits."""
    return f"{secrets.randbits(bits):0{bits // 4}x}"
