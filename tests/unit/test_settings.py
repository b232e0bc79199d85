"""One value for the settings of a bus, and the texts that stand for it."""

import msgspec
import pytest

from pbus.errors import BusError
from pbus.settings import BusOptions, BusSettings, DeliveryOptions
from pbus.topology.schema import BusSection

OTHER = BusSettings(
    backend="pgmq",
    url="postgresql://me:secret@db/app",
    channel="pbus:shop",
    max_message_bytes=12_345,
    encoding="msgpack",
    key="null and more characters",
    encrypt=True,
    delivery="at-least-once",
    send_timeout=1.5,
    stats=False,
    direct=True,
    delivery_options=DeliveryOptions(
        max_backlog=7,
        max_backlog_bytes=8_000,
        when_full="refuse",
        max_attempts=2,
        max_crash_attempts=4,
    ),
)


def test_other_settings_differ_everywhere():
    """What the tests below pass on would show a setting that gets lost."""
    plain = BusSettings()
    assert all(OTHER.to_keys()[key] != value for key, value in plain.to_keys().items())


@pytest.mark.parametrize("settings", [BusSettings(), OTHER], ids=["defaults", "others"])
def test_environment_carries_every_setting(settings):
    """A program that is given the variables has the settings."""
    outer = BusSettings(key="of an outer pbus", encrypt=True).to_env()

    assert settings == BusSettings.from_env(outer | settings.to_env())


def test_environment_declares_its_worker():
    """The queue of the worker outlives its process."""
    settings = BusSettings.from_env(OTHER.to_env() | {"PBUS_WORKER": "a.1"})

    assert OTHER.declaring("a.1") == settings


@pytest.mark.parametrize("variable", ["PBUS_MAX_BACKLOG", "PBUS_ENCODING", "PBUS_ENCRYPT"])
def test_wrong_variable_is_told(variable):
    """A value that is none raises an error that names the setting."""
    with pytest.raises(BusError, match=variable.removeprefix("PBUS_").lower()):
        BusSettings.from_env(OTHER.to_env() | {variable: "plenty"})


def test_keywords_carry_every_setting():
    """The keywords of `connect()` are the fields, apart from what the URL says."""
    fields = set(BusSettings.__struct_fields__) - {"backend", "url"}
    assert fields == set(BusOptions.__annotations__)

    bare = BusSettings(backend="pgmq", url=OTHER.url)
    assert OTHER == bare.updated(OTHER.options())


def test_topology_keys_are_settings():
    """Every key of `bus:` is a setting, so it needs no line of its own on the way to a bus."""
    assert set(BusSection.__struct_fields__) <= set(BusSettings().to_keys())


def test_another_delivery_has_its_own_options():
    """The options of the delivery that was given up do not come along."""
    assert DeliveryOptions() == OTHER.updated({"delivery": "at-most-once"}).delivery_options
    assert OTHER.delivery_options == OTHER.updated({"delivery": None}).delivery_options


def test_nothing_is_encrypted_without_key():
    """A key that is taken away takes encryption along, unless that is asked for again."""
    assert not OTHER.updated({"key": ""}).encrypt
    assert OTHER.updated({"key": "", "encrypt": True}).encrypt
    assert OTHER.updated({"key": "another key of many characters"}).encrypt


def test_shows_no_secret():
    """Neither password nor key is in what a traceback prints."""
    assert "secret" not in repr(OTHER)
    assert "null" not in repr(OTHER)


def test_text_survives_json():
    """The record of a project holds settings."""
    assert OTHER == msgspec.json.decode(msgspec.json.encode(OTHER), type=BusSettings)
