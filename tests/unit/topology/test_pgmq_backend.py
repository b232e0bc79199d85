"""`backend: pgmq` in a topology: what it means where nothing else is said, and what it excludes."""

import pytest

from pbus.settings import BusSettings, DeliveryOptions
from support.topologies import WORKER, load_text, problems_of

STORED = "at-least-once"
POSTGRES = "postgresql://user:${PGPASSWORD}@db.example/app"


def test_starts_postgres_unasked(tmp_path):
    """Without a URL pbus starts the server itself, and messages are kept."""
    bus = load_text(tmp_path, "name: shop\nbus: {backend: pgmq}\n" + WORKER).bus

    assert BusSettings(backend="pgmq", channel="pbus:shop", delivery=STORED) == bus


@pytest.mark.parametrize("url", [POSTGRES, POSTGRES.replace("postgresql", "postgres")])
def test_infers_pgmq_from_urls(tmp_path, url):
    """A Postgres URL needs no `backend`, and brings its delivery along."""
    bus = load_text(tmp_path, f"bus: {{url: '{url}'}}\n" + WORKER, PGPASSWORD="s").bus

    assert ("pgmq", STORED) == (bus.backend, bus.delivery)
    assert url.replace("${PGPASSWORD}", "s") == bus.url


def test_reads_kept_keys(tmp_path):
    """What is said about kept messages needs no `delivery` here."""
    text = (
        "bus: {backend: pgmq, max_backlog: 7, when_full: refuse, max_attempts: 2,"
        " max_crash_attempts: 3}\n"
    )
    assert (
        DeliveryOptions(
            max_backlog=7,
            when_full="refuse",
            max_attempts=2,
            max_crash_attempts=3,
        )
        == load_text(tmp_path, text + WORKER).bus.delivery_options
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("encoding: msgpack", "bus.encoding: Postgres keeps messages as JSON"),
        ("max_message_bytes: 134217729", "bus.max_message_bytes: expected at most 134217728"),
        ("url: redis://db.example", "bus.url: redis:// is a URL of the redis bus"),
        ("url: memory://", "bus.url: memory:// is a URL of the memory bus"),
    ],
)
def test_refuses_what_excludes_pgmq(tmp_path, line, problem):
    """Each wrong combination is a problem on the line of its key."""
    (told,) = problems_of(tmp_path, f"bus:\n  backend: pgmq\n  {line}\n" + WORKER)

    assert told.startswith(f"topology.yaml:3: {problem}"), told
