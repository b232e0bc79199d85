"""What a topology says about delivery."""

import msgspec
import pytest

from pbus.errors import TopologyError
from pbus.settings import BusSettings, DeliveryOptions
from support.topologies import WORKER, load_text


def test_redis_keeps_nothing_unasked(tmp_path):
    """Without a word about delivery a message is carried at most once."""
    bus = load_text(tmp_path, WORKER).bus
    assert ("at-most-once", DeliveryOptions()) == (bus.delivery, bus.delivery_options)


def test_reads_all_delivery_keys(tmp_path):
    """Every key arrives, and with it what a bus is told."""
    bus = (
        "bus: {delivery: at-least-once, max_backlog: 7, max_backlog_bytes: 3MB, when_full: refuse, max_attempts: 2,"
        " max_crash_attempts: 3}\n"
    )
    settings = load_text(tmp_path, bus + WORKER).bus

    assert settings.is_stored
    options = BusSettings.from_env(settings.to_env() | {"PBUS_WORKER": "a"}).delivery_options
    assert {
        "max_attempts": 2,
        "max_crash_attempts": 3,
        "max_backlog": 7,
        "max_backlog_bytes": 3 * 1024**2,
        "when_full": "refuse",
        "declared": frozenset({"a"}),
    } == msgspec.structs.asdict(options)


@pytest.mark.parametrize(
    ("bus", "complaint"),
    [
        ("{delivery: exactly-once}", "did you mean `at-least-once`?"),
        ("{max_backlog: 5}", "add `delivery: at-least-once`"),
        ("{max_backlog_bytes: 5MB}", "add `delivery: at-least-once`"),
        ("{delivery: at-least-once, max_backlog_bytes: 5 apples}", "a size from 1KB to 1TB"),
        ("{delivery: at-least-once, max_backlog_bytes: 5}", "a size from 1KB to 1TB"),
        ("{delivery: at-least-once, max_backlog_bytes: [1]}", "a size from 1KB to 1TB"),
        ("{backend: memory, delivery: at-least-once}", "needs a broker"),
        ("{delivery: at-least-once, max_attempts: 0}", "from 1 to 1000"),
    ],
)
def test_refuses_impossible_delivery(tmp_path, bus, complaint):
    """What cannot be kept is refused with what to do."""
    with pytest.raises(TopologyError) as caught:
        load_text(tmp_path, f"bus: {bus}\n" + WORKER)
    assert complaint in str(caught.value)


def test_names_mailboxes_to_keep(tmp_path):
    """Queues are durable for all workers that join the bus, and for groups of replicas."""
    topology = load_text(
        tmp_path, WORKER + "  b: {worker: 'm:B', replicas: 2}\n  c: {command: [x]}\n"
    )
    assert ["a", "b", "b.1", "b.2"] == sorted(topology.queues())


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("4096", 4096),
        ("'4096'", 4096),
        ("64k", 64 * 1024),
        ("64 KB", 64 * 1024),
        ("256MB", 256 * 1024**2),
        ("1GiB", 1024**3),
        ("1tb", 1024**4),
        ("", 256 * 1024**2),
    ],
)
def test_reads_sizes(tmp_path, written, size):
    """A size is a whole number of bytes, or one with a unit; what is left empty is the default."""
    bus = f"bus:\n  delivery: at-least-once\n  max_backlog_bytes: {written}\n"

    assert size == load_text(tmp_path, bus + WORKER).bus.delivery_options.max_backlog_bytes
