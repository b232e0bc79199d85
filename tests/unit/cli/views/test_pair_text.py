"""Requests with their answers on one line each."""

import json
from typing import Any

import pytest

from pbus_cli.terminal.clean import clean
from pbus_cli.views.messages.pair_text import between_text, pair_text
from pbus_cli.views.traffic import Passed, Widths


def passed(kind: str, at: float, **fields: Any) -> Passed:
    """A message of a job."""
    body = json.dumps({"type": kind, "source": "a", "target": "b", **fields}).encode()
    return Passed(at, kind, "a", "b", body, len(body))


RED = "\x1b[1;31m"
REQUEST = passed("BusJobRequestMessage", 5.0, job_name="load", deadline=9.0, window=512)
ANSWER = passed("BusJobResponseMessage", 5.0235, status="completed", response={"n": 1}, events=0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "no answer"),
        (0.0, "0.00 ms"),
        (0.000412, "0.41 ms"),
        (0.0235, "23.5 ms"),
        (1.346, "1.35 s"),
        (128.4, "128 s"),
    ],
)
def test_times_between_are_short(seconds: float | None, text: str) -> None:
    """Three digits that count."""
    assert text == between_text(seconds)


def test_a_pair_has_both_bodies() -> None:
    """The line of its request, then time and status; without fields that say nothing more."""
    line = pair_text(REQUEST, ANSWER, "completed", Widths())

    assert line.endswith('    23.5 ms  completed  job_name="load" ⇒ response={"n": 1}')
    assert "a      → b       JobReq" in line


def test_no_answer_is_seen_without_colours() -> None:
    """In words."""
    line = pair_text(REQUEST, None, None, Widths())

    assert line.endswith('  no answer  job_name="load"')
    assert "⇒" not in line


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_fit(width: int) -> None:
    """Whatever the bodies are."""
    long = passed("BusJobResponseMessage", 9.0, response={"text": "漢" * 300})

    assert width >= len(pair_text(REQUEST, long, "completed", Widths(), width=width))


def test_bad_ends_are_red() -> None:
    """Those that went well are not."""
    bad, well = (
        clean(pair_text(REQUEST, ANSWER, status, Widths(), has_colors=True))
        for status in ("failed", "completed")
    )

    assert f"{RED}  23.5 ms  " in bad
    assert f"{RED}failed" in bad
    assert RED not in well.partition("ms")[0][-12:]
