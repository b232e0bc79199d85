"""Histograms of durations, of a fixed size and mergeable.

Buckets are log-linear, as in HDR histograms: eight to each power of two from 0.1 us to 30 hours, so a
quantile is within 6.25 % of the true value (within 0.05 us below 0.8 us).
"""

from typing import Self

import msgspec

UNIT_S = 1e-7
RELATIVE_ERROR = 0.0625
_SUB_BITS = 3
_SUB_BUCKETS = 1 << _SUB_BITS
_MAX_BITS = 40
MAX_S = (1 << _MAX_BITS) * UNIT_S
TOP_INDEX = ((_MAX_BITS - _SUB_BITS) << _SUB_BITS) + _SUB_BUCKETS  # of all that is longer


def index_of(seconds: float) -> int:
    """The bucket of a duration; 0 for what is none (negative, or not a number)."""
    if seconds >= MAX_S:
        return TOP_INDEX
    if not seconds > 0.0:
        return 0
    units = int(seconds / UNIT_S)
    shift = units.bit_length() - _SUB_BITS - 1
    return units if shift <= 0 else (shift << _SUB_BITS) + (units >> shift)


def bounds_of(index: int) -> tuple[float, float]:
    """The least duration of a bucket, and the least of the next one, in seconds."""
    return _least(index) * UNIT_S, _least(index + 1) * UNIT_S


def _least(index: int) -> int:
    if index < 2 * _SUB_BUCKETS:
        return index
    shift = (index >> _SUB_BITS) - 1
    return (index - (shift << _SUB_BITS)) << shift


class Histogram(msgspec.Struct, array_like=True):
    """Durations by bucket.

    Attributes:
        buckets: Counts by bucket, those that are not 0.
        sum_s: All durations together, in seconds.
    """

    buckets: dict[int, int] = msgspec.field(default_factory=dict)
    sum_s: float = 0.0

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.buckets.values())

    def record(self, seconds: float, count: int = 1) -> None:
        """Add durations of one length."""
        index = index_of(seconds)
        self.buckets[index] = self.buckets.get(index, 0) + count
        if seconds > 0.0:
            self.sum_s += min(seconds, MAX_S) * count

    def merge(self, other: Self) -> None:
        """Add the durations of another histogram."""
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count
        self.sum_s += other.sum_s

    def quantile(self, share: float) -> float | None:
        """The duration in seconds that a share of all does not exceed; None without any.

        Args:
            share: From 0 to 1.
        """
        rank, seen = share * self.count, 0
        for index, count in sorted(self.buckets.items()):
            seen += count
            if seen >= rank:
                return sum(bounds_of(index)) / 2
        return None

    def count_to(self, seconds: float) -> int:
        """The number of durations in buckets that end at or below this duration."""
        limit = round(seconds / UNIT_S)
        return sum(count for index, count in self.buckets.items() if _least(index + 1) <= limit)
