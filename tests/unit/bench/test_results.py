"""Figures of a benchmark: percentiles, ratios, checks, sums."""

import pytest

from pbus.bench.results import (
    CaseResult,
    Check,
    Environment,
    Percentiles,
    Plan,
    Report,
    Row,
    percentile,
    ratio,
)


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50), (90, 90), (99, 99), (100, 100), (0.1, 1)]
)
def test_percentile_is_nearest_rank(percent: float, expected: int) -> None:
    """It is a value that was measured: the smallest that so many percent do not exceed."""
    assert expected == percentile(list(range(100, 0, -1)), percent)


def test_percentile_of_nothing() -> None:
    """Where nothing was measured there is no figure, and no error."""
    assert None is percentile([], 50)
    assert Percentiles() == Percentiles.of_seconds([])


def test_percentiles_are_in_milliseconds() -> None:
    """DelayResult come in seconds and are shown in milliseconds."""
    found = Percentiles.of_seconds([0.001, 0.002, 0.003])

    assert Percentiles(p50_ms=2.0, p90_ms=3.0, p99_ms=3.0) == found


@pytest.mark.parametrize(
    ("value", "to", "expected"), [(3.0, 2.0, 1.5), (None, 2.0, 0.0), (3.0, None, 0.0), (1.0, 0, 0)]
)
def test_ratio_without_figure_is_zero(
    value: float | None, to: float | None, expected: float
) -> None:
    """A figure that is missing makes a ratio that meets no demand."""
    assert expected == ratio(value, to)


@pytest.mark.parametrize(
    ("bounds", "is_met"),
    [
        ({"at_least": 2.5}, False),
        ({"at_least": 2.0}, True),
        ({"at_most": 2.0}, True),
        ({"at_most": 1.9}, False),
        ({}, True),
    ],
)
def test_check_judges_its_value(bounds: dict[str, float], is_met: bool) -> None:
    """The bounds themselves are good enough."""
    assert is_met == Check.of("speed", 2.0, **bounds).is_met


def test_systems_take_turns() -> None:
    """With a baseline each round measures both, or a busy moment would meet one of them alone."""
    plan = Plan(has_baseline=True, rounds=2)

    assert ["pbus", "redis-py", "pbus", "redis-py"] == plan.systems
    assert ["pbus", "pgmq"] == Plan(has_baseline=True, rounds=1, baseline="pgmq").systems
    assert ["pbus"] * 2 == plan.without_baseline.systems


def test_report_counts_own_losses() -> None:
    """What plain pub/sub loses is no failure of pbus."""
    rows = (
        Row(name="a", count=1, lost=2),
        Row(name="b", count=1, lost=3),
        Row(name="a", system="redis-py", count=1, lost=100),
    )
    here = Environment.here("nowhere")

    assert 5 == Report(environment=here, rows=rows, checks=()).lost


def test_environment_tells_the_loop() -> None:
    """Figures of one loop are not taken for those of another."""
    assert ["asyncio", "uvloop"] == [
        Environment.here("nowhere").loop,
        Environment.here("nowhere", "uvloop").loop,
    ]


def test_findings_are_found_by_name() -> None:
    """Checks across measurements look their rows up by name and system."""
    ours, theirs = Row(name="a", count=1), Row(name="a", system="redis-py", count=2)
    findings = CaseResult(rows=(ours,)) + CaseResult(rows=(theirs,))

    assert ours == findings.row("a")
    assert theirs == findings.row("a", "redis-py")
    assert None is findings.row("b")


def test_peers_take_turns_too() -> None:
    """Each round measures ours first, then the plain client, then other systems."""
    plan = Plan(rounds=2, has_baseline=True, peers=("nats-py",))

    assert ["pbus", "redis-py", "nats-py"] * 2 == plan.systems
    assert ["pbus", "nats-py"] * 2 == plan.without_baseline.systems
    assert ["pbus"] == Plan(rounds=1).systems
