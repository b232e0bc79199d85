"""From a URL to a bus, in a program that `pbus up` started and elsewhere."""

import pytest

from pbus.bus.connect import connect
from pbus.bus.redis import RedisBus

URL = "redis://broker.invalid:6379"


@pytest.fixture(autouse=True)
def started_by_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a topology with every option gives to its programs."""
    monkeypatch.setenv("PBUS_URL", URL)
    monkeypatch.setenv("PBUS_CHANNEL", "pbus:shop")
    monkeypatch.setenv("PBUS_MAX_MESSAGE_BYTES", "12345678")
    monkeypatch.setenv("PBUS_ENCODING", "msgpack")
    monkeypatch.setenv("PBUS_DELIVERY", "at-least-once")
    monkeypatch.setenv("PBUS_MAX_ATTEMPTS", "7")


def options_of(bus: object) -> tuple[int, str, str, int]:
    """What was made of the options."""
    assert isinstance(bus, RedisBus)
    attempts = bus._settings.delivery_options.max_attempts
    return bus.max_message_bytes, bus.encoding, bus.delivery, attempts


def test_topology_is_followed():
    """A program of a topology speaks as its workers do, without being told twice."""
    bus = connect(URL, channel="pbus:shop")

    assert (12_345_678, "msgpack", "at-least-once", 7) == options_of(bus)


def test_own_word_counts_more():
    """What a program says itself holds."""
    bus = connect(
        URL, channel="pbus:shop", max_message_bytes=99, encoding="json", delivery="at-most-once"
    )

    assert (99, "json", "at-most-once", 5) == options_of(bus)


@pytest.mark.parametrize(
    ("url", "channel"), [(URL, "pbus:other"), ("redis://b.invalid", "pbus:shop")]
)
def test_other_buses_are_not_meant(url: str, channel: str):
    """Another channel or server has nothing to do with the topology."""
    assert (4 * 1024 * 1024, "json", "at-most-once", 5) == options_of(connect(url, channel=channel))
