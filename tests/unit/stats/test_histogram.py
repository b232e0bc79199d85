"""Histograms of durations: their error bound, merging, differences and quantiles."""

import itertools
import math
import random

import pytest

from pbus.stats.histogram import (
    MAX_S,
    RELATIVE_ERROR,
    TOP_INDEX,
    UNIT_S,
    Histogram,
    bounds_of,
    index_of,
)


def test_buckets_cover_all_durations_in_order():
    """Each bucket begins where the one before ends, from 0 to the longest duration."""
    bounds = [bounds_of(index) for index in range(TOP_INDEX)]

    assert 0.0 == bounds[0][0]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    assert all(low < high for low, high in bounds)
    assert MAX_S == pytest.approx(bounds[-1][1])


def test_a_duration_is_within_its_bucket():
    """Also at the edges of buckets, and over all magnitudes."""
    rng = random.Random(14)
    durations = [10 ** rng.uniform(-7, 5) for _ in range(2_000)]
    durations += [units * UNIT_S for units in (1, 7, 8, 15, 16, 17, 31, 32, 1 << 20)]
    for seconds in durations:
        low, high = bounds_of(index_of(seconds))
        assert low - UNIT_S <= seconds < high + UNIT_S
        assert low * (1 - 1e-9) - UNIT_S <= seconds


@pytest.mark.parametrize(
    ("seconds", "index"),
    [(-1.0, 0), (0.0, 0), (math.nan, 0), (-math.inf, 0), (math.inf, TOP_INDEX), (1e300, TOP_INDEX)],
)
def test_any_number_has_a_bucket(seconds, index):
    """What is no duration counts as 0, what is too long as the longest."""
    assert index == index_of(seconds)
    histogram = Histogram()
    histogram.record(seconds)
    assert (1, True) == (histogram.count, 0.0 <= histogram.sum_s <= MAX_S)


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_quantiles_keep_to_the_error_bound(share):
    """A quantile is within 6.25 % of that of the durations themselves."""
    rng = random.Random(15)
    durations = sorted(rng.lognormvariate(-6, 2) for _ in range(5_000))
    histogram = Histogram()
    for seconds in durations:
        histogram.record(seconds)

    true = durations[math.ceil(share * len(durations)) - 1]
    assert abs(histogram.quantile(share) - true) <= RELATIVE_ERROR * true + UNIT_S


def test_nothing_has_no_quantile():
    """Where nothing was timed there is no time to show."""
    assert Histogram().quantile(0.5) is None


def test_merging_is_counting_together():
    """Histograms of two processes are that of both."""
    parts, whole = (Histogram(), Histogram()), Histogram()
    for number in range(1_000):
        parts[number % 2].record(number / 1000, 1 + number % 3)
        whole.record(number / 1000, 1 + number % 3)
    parts[0].merge(parts[1])

    assert whole.buckets == parts[0].buckets
    assert whole.sum_s == pytest.approx(parts[0].sum_s)


def test_counts_to_a_bound():
    """The number of durations up to a power of two is exact, as Prometheus shows it."""
    histogram = Histogram()
    for units in (1, 1023, 1024, 1025, 1 << 20):
        histogram.record(units * UNIT_S)

    assert [2, 4, 5] == [histogram.count_to(limit * UNIT_S) for limit in (1024, 2048, 1 << 21)]
