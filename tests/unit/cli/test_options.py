"""Durations, names and filters as they are typed."""

import re
import time

import pytest
import typer

from pbus.bus.tap import TapMessage
from pbus.client.traffic.message_filter import Filter
from pbus.codec import Header
from pbus.names import stands_for, unknown_name
from pbus_cli.input.name_hints import unknown_text
from pbus_cli.input.options import parse_duration, parse_moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10.0), ("10s", 10.0), ("1.5m", 90.0), ("2h", 7_200.0), ("500ms", 0.5), (" .5s ", 0.5)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    """A bare number is seconds."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "ten", "1 s", "nan"])
def test_wrong_durations_are_refused(text: str) -> None:
    """With an example of a right one."""
    with pytest.raises(typer.BadParameter, match="10s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-28T05:30:00Z", 1795843800.0),
        (" 2026-11-28 05:30:00.5+00:00 ", 1795843800.5),
        ("2026-11-28T06:30:00+01:00", 1795843800.0),
    ],
)
def test_moments_are_times(text: str, at: float) -> None:
    """With a zone they mean the same everywhere."""
    assert at == parse_moment(text)


def test_moments_are_times_ago_or_of_this_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A duration counts from now back; a time without a zone is by the clock of this place."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert [400.0, 1000.0, 999.5] == [parse_moment(text) for text in ("10m", "0", "500ms")]

    local = time.mktime((2026, 11, 28, 5, 30, 0, 0, 0, -1))
    assert local == parse_moment("2026-11-28T05:30")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "-10m", "0001-01-01", "nan"])
def test_wrong_moments_are_refused(text: str) -> None:
    """With an example of a right one, also where the time cannot be counted in seconds."""
    with pytest.raises(typer.BadParameter, match="10m"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("name", "worker", "meant"),
    [
        ("indexer", "indexer.2", True),
        ("indexer.2", "indexer.2", True),
        ("index", "indexer", False),
        ("indexer.2", "indexer", False),
    ],
)
def test_names_mean_replicas(name: str, worker: str, meant: bool) -> None:
    """The common name means every replica, and no other worker."""
    assert meant == stands_for(name, worker)


def test_nearest_name_is_offered() -> None:
    """A slip of the finger is recognised; otherwise the names there are."""
    known = ["librarian", "indexer.1", "indexer.2"]

    assert "did you mean 'indexer'?" in unknown_text(unknown_name("worker", "indxer", known))
    assert "indexer, indexer.1, indexer.2, librarian" in unknown_text(
        unknown_name("worker", "zzz", known)
    )
    assert unknown_text(unknown_name("worker", "zzz", [])).endswith("there are: none")


def seen(
    kind: str = "BusFrameMessage", source: str = "a.1", target: str | None = "b", lane: str = "d"
) -> TapMessage:
    """A message on the channel."""
    header = Header(type=kind, source=source, target=target, id="1", time=1.0)
    return TapMessage(header=header, body=b'{"text":"gr\xc3\xbc\xc3\x9fe"}', lane=lane)


@pytest.mark.parametrize(
    ("chosen", "passes"),
    [
        pytest.param(Filter(), True, id="none"),
        pytest.param(Filter(sources=("a",)), True, id="common source"),
        pytest.param(Filter(sources=("a.2", "a.1")), True, id="one of two sources"),
        pytest.param(Filter(sources=("a.*",), targets=("c",)), False, id="wrong target"),
        pytest.param(Filter(targets=("b",)), True, id="target"),
        pytest.param(Filter(types=("Frame",)), True, id="short type"),
        pytest.param(Filter(types=("Bus*Message",)), True, id="type pattern"),
        pytest.param(Filter(types=("Job*",)), False, id="wrong type"),
        pytest.param(Filter(categories=frozenset({"job", "data"})), True, id="category"),
        pytest.param(Filter(categories=frozenset({"system"})), False, id="wrong category"),
        pytest.param(Filter(pattern=re.compile("grüße".encode())), True, id="text"),
        pytest.param(Filter(pattern=re.compile(b"^x")), False, id="wrong text"),
    ],
)
def test_filters_combine(chosen: Filter, passes: bool) -> None:
    """Kinds of conditions add up, several of one kind are alternatives."""
    assert passes == chosen.passes(seen())


def test_broadcasts_match_star() -> None:
    """A message for everyone is not for anybody in particular."""
    broadcast = seen(target=None)

    assert Filter(targets=("*",)).passes(broadcast)
    assert not Filter(targets=("b",)).passes(broadcast)


def test_strangers_go_by_lane() -> None:
    """A type this process does not know is system when it was urgent."""
    chosen = Filter(categories=frozenset({"system"}))

    assert [True, False] == [chosen.passes(seen("Foo", lane=lane)) for lane in "sd"]
