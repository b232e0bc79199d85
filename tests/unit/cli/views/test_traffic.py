"""Messages on one line each: aligned, cut, and harmless to a terminal."""

import base64
import dataclasses
import json
from typing import Any

import pytest

from pbus.client.traffic.message_tail import data_fields
from pbus.client.traffic.type_names import category_of, short_type
from pbus_cli.terminal.clean import clean
from pbus_cli.views import colors
from pbus_cli.views.traffic import (
    Passed,
    Widths,
    body_text,
    traffic_line,
    traffic_lines,
    traffic_text,
)
from support.screens import SIZES, widest


def passed(
    kind: str = "BusFrameMessage", source: str = "a", target: str | None = "b", **fields: Any
) -> Passed:
    """A message that passed, with these own fields."""
    header = {"type": kind, "source": source, "target": target, "id": "1-1", "time": 1.5}
    body = json.dumps(header | fields, separators=(",", ":")).encode()
    return Passed(1.5, kind, source, target, body, len(body))


@pytest.mark.parametrize(("width", "_"), SIZES)
def test_no_line_too_wide(width: int, _: int) -> None:
    """Whatever names and bodies there are."""
    messages = [
        passed(text="x" * 500),
        passed("BusAVeryLongTypeNameOfAUsersOwnInventionMessage", "s" * 64, "t" * 64, n=1),
        passed("Umlaut", "größe", None, text="漢字" * 100),
    ]

    assert widest(traffic_lines(messages, width, 10)) <= width


def test_arrows_are_aligned() -> None:
    """Source, target and type begin in one column each."""
    lines = traffic_lines([passed(source="a"), passed(source="librarian"), passed()], 120, 10)

    assert len({line.plain.index("→") for line in lines}) == 1
    assert len({line.plain.index("Frame") for line in lines}) == 1


def test_newest_lines_win() -> None:
    """Of more than fit, the newest stay, oldest first."""
    lines = traffic_lines([passed(n=number) for number in range(9)], 80, 3)

    assert ["n=6", "n=7", "n=8"] == [line.plain.split()[-1] for line in lines]


def test_no_room_no_lines() -> None:
    """A screen without room shows none instead of all."""
    assert traffic_lines([passed()], 80, 0) == []


def test_header_not_repeated() -> None:
    """The body leaves out what the columns say already, and the job's id comes last."""
    message = passed("BusJobRequestMessage", job_id="7-1", job_name="index", payload={"n": 1})

    assert body_text(message.body) == 'job_name="index" payload={"n":1} job_id="7-1"'


def test_a_message_that_stayed_in_its_process_is_marked() -> None:
    """Before its body; others are not."""
    there = passed(text="x")
    here = dataclasses.replace(there, is_local=True)

    assert ["(local) text", "text"] == [
        traffic_text(one, Widths()).partition("B  ")[2].partition("=")[0] for one in (here, there)
    ]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (1, "1 B"), (2, "2 B"), (3, "3 B"), (15, "15 B"), (5000, "4.9 KB")],
)
@pytest.mark.parametrize("field", ["audio", "image"])
def test_data_of_frames_by_its_size(field: str, size: int, expected: str) -> None:
    """Base64 tells a reader nothing."""
    data = base64.b64encode(bytes(size)).decode()
    text = passed(
        frame={"type": "MyFrame", field: data, "rate": 8000}, made=[3, "BusFrameMessage#1"]
    )

    level = " ▁▁▁▁▁▁▁▁" if field == "audio" and size > 16 else ""
    assert f"MyFrame {field}={expected}{level} rate=8000" == body_text(text.body)


def test_what_all_frames_have_comes_last() -> None:
    """The text of a frame is on the line before its number and the like."""
    frame = {"type": "TextFrame", "id": 5, "metadata": {}, "text": "hello", "user_id": "caller"}
    assert body_text(passed(frame=frame).body) == (
        'TextFrame text="hello" user_id="caller" id=5 metadata={}'
    )


def test_frame_by_its_type() -> None:
    """What is in a frame comes first, not how a frame is written; a strange one as it is."""
    text = passed(frame={"type": "TextFrame", "text": "hello"}, direction="upstream")

    assert body_text(text.body) == 'TextFrame text="hello" direction="upstream"'
    assert body_text(passed(frame=[1]).body) == "frame=[1]"


@pytest.mark.parametrize(("width", "_"), SIZES)
def test_body_has_room(width: int, _: int) -> None:
    """However long the names, something of the body is seen."""
    frame = {"type": "TextFrame", "text": "to be seen"}
    long = passed("BusWorkerRegistryMessage", "supervisor-82ecaa00dd12", "a-worker-of-long-name.1")
    lines = traffic_lines([long, passed(frame=frame)], width, 10)

    assert "TextFrame" in lines[1].plain
    assert width < 100 or "to be seen" in lines[1].plain


def test_cut_body_is_shown() -> None:
    """Of a long message only the beginning was kept: its own fields are shown all the same."""
    message = passed("BusJobResponseMessage", status="completed", text="y" * 9_000)

    assert body_text(message.body[:3_000]).startswith('"status":"completed","text":"yyy')


def test_cut_job_leads_with_its_data() -> None:
    """What a reader wants of a long piece of a job is its data, not whose piece it is."""
    body = (
        b'{"type":"BusJobStreamDataMessage","source":"a","job_id":"1-2","data":{"text":"'
        + b"x" * 99
    )

    assert body_text(body).startswith('"data":{"text":"xxx')


def test_key_stands_before_the_body() -> None:
    """Once, harmless to a terminal, and also where the body was cut."""
    one = passed(text="t")
    body = one.body.replace(b'"text"', b'"key":"call-17\\u001b[2J","text"')
    keyed = dataclasses.replace(one, body=body, key="call-17\x1b[2J")
    cut = dataclasses.replace(keyed, body=keyed.body[:-2])

    for message in (keyed, cut):
        line = traffic_text(message, Widths())
        assert (1, 0) == (line.count("call-17"), line.count("\x1b"))
        assert line.index("[call-17") < line.index('t"')
    assert "[" not in traffic_text(passed(text="t"), Widths())


def test_control_characters_are_replaced() -> None:
    """Nothing that a message carries reaches the terminal as a command."""
    wild = Passed(1.0, "T\x1b[2J", "a\x07", "b\r", b'{"x":"\x1b]0;t\x07"}\xff', 9)

    assert traffic_line(wild, Widths(), 200).plain.isprintable()


def test_broadcast_has_star() -> None:
    """Everyone is written as a star."""
    assert "a      → *     " in traffic_line(passed(target=None), Widths()).plain


def test_urgent_is_marked() -> None:
    """What overtook the rest can be told without colours."""
    message = passed("BusCancelMessage")
    urgent = Passed(**{**vars(message), "is_urgent": True})

    assert " ! " in traffic_line(urgent, Widths()).plain
    assert " ! " not in traffic_line(message, Widths()).plain


def test_error_answer_is_highlighted() -> None:
    """A job that went wrong is seen among those that went well."""
    failed = traffic_line(passed("BusJobResponseMessage", status="error"), Widths())
    well = traffic_line(passed("BusJobResponseMessage", status="completed"), Widths())

    assert colors.ERROR in {str(span.style) for span in failed.spans}
    assert colors.ERROR not in {str(span.style) for span in well.spans}


@pytest.mark.parametrize("width", [40, 80, 200])
def test_stream_agrees_with_drawing(width: int) -> None:
    """The quick way for pipes makes the same line as the drawn one."""
    message = passed(text="漢字 and more " * 30)

    assert traffic_text(message, Widths(), width=width) == (
        traffic_line(message, Widths(), width).plain.rstrip()
    )


def test_piped_line_uncolored() -> None:
    """No escape goes into a pipe."""
    assert "\x1b" not in traffic_text(passed(), Widths())


def test_terminal_line_colored() -> None:
    """On a terminal names have their colours."""
    assert "\x1b[" in clean(traffic_text(passed(), Widths(), width=80, has_colors=True))


def test_data_without_header() -> None:
    """What `--json` gives as data: the own fields, untouched."""
    fields = data_fields(passed(numbers=[1, 2]).body)

    assert fields is not None
    assert {key: bytes(raw) for key, raw in fields.items()} == {"numbers": b"[1,2]"}


def test_garbage_has_no_data() -> None:
    """Bytes that are no JSON object are no data."""
    assert (data_fields(b"\xff"), data_fields(b"[1]")) == (None, None)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("BusFrameMessage", "Frame"),
        ("BusMessage", "BusMessage"),
        ("Reading", "Reading"),
        ("BusStop", "BusStop"),
        ("TextMessage", "TextMessage"),
    ],
)
def test_short_type_names(name: str, short: str) -> None:
    """Only what has both parts of the catalogue's names loses them."""
    assert short == short_type(name)


@pytest.mark.parametrize(
    ("name", "is_urgent", "category"),
    [
        ("BusFrameMessage", False, "data"),
        ("BusEndMessage", False, "system"),
        ("BusJobCancelMessage", True, "job"),
        ("Unheard", False, "data"),
        ("Unheard", True, "system"),
    ],
)
def test_category_of_types(name: str, is_urgent: bool, category: str) -> None:
    """The catalogue's, or for strangers the lane's."""
    assert category == category_of(name, is_urgent=is_urgent)
