"""Which messages a tail shows: names, what is left out, jobs, conditions, samples."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

from pbus.bus.tap import TapMessage
from pbus.client.traffic.message_filter import TailTerms, filter_of
from pbus.client.traffic.message_tail import MessageTail, TailMessage
from pbus.codec import Header


def seen(kind: str, source: str = "mic", target: str | None = "stt", **fields: Any) -> TapMessage:
    """A message as a tap sees it; a key is part of the header."""
    more = {name: fields.pop(name) for name in ("key", "traceparent") if name in fields}
    header = Header(type=kind, source=source, target=target, id="1-1", time=1.5, **more)
    own = {"type": kind, "source": source, "target": target, "id": "1-1", "time": 1.5}
    body = json.dumps(own | fields, separators=(",", ":")).encode()
    return TapMessage(header=header, body=body, lane="s" if "Cancel" in kind else "d")


AUDIO = seen("BusFrameMessage", frame={"type": "AudioRawFrame", "audio": "AAAA"}, key="call-1")
TEXT = seen("BusFrameMessage", "stt.2", "agent", frame={"type": "TextFrame", "text": "hello"})
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
NOTE = seen("Remark", "agent", None, text="AudioRawFrame", n=3, traceparent=PARENT)
REQUEST = seen("BusJobRequestMessage", "agent", "tool", job_id="j-1", payload={"n": 1})
AGAIN = seen("BusJobRequestMessage", "agent", "tool.2", job_id="j-1~2", payload={"n": 1})
PIECE = seen("BusJobStreamDataMessage", "tool", "agent", job_id="j-1", data={"x": 1})
CANCEL = seen("BusJobCancelMessage", "agent", "tool", job_id="j-1", reason="j-2")
OTHER = seen("BusJobResponseMessage", "tool", "agent", job_id="j-2", status="completed")
CREDIT = seen("BusJobCreditMessage", "agent", "tool", job_id="j-1", position=4)
ALL = {
    "audio": AUDIO,
    "text": TEXT,
    "note": NOTE,
    "request": REQUEST,
    "again": AGAIN,
    "piece": PIECE,
    "cancel": CANCEL,
    "other": OTHER,
    "credit": CREDIT,
}


def passing(**terms: Any) -> str:
    """The names of the messages that pass."""
    chosen = filter_of(TailTerms(**terms))
    return " ".join(name for name, item in ALL.items() if chosen.passes(item))


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"type": "AudioRawFrame"}, "audio"),
        ({"type": ("Text*", "Remark")}, "text note"),
        ({"type": "Frame"}, "audio text"),
        ({"job": "j-1"}, "request again piece cancel"),
        ({"job": ("j-2", "j-3")}, "other"),
        ({"job": "j-*", "type": "JobRequest"}, "request again"),
        ({"job": "j"}, ""),
        ({"trace": TRACE}, "note"),
        ({"trace": ("4bf9*", "0" * 32)}, "note"),
        ({"trace": AUDIO.header.trace_id, "type": ("Frame", "Remark")}, "audio text"),
        (
            {"exclude": f"trace={TRACE}", "source": "agent", "type": ("Remark", "JobCredit")},
            "credit",
        ),
        ({"exclude": "AudioRawFrame", "type": "Frame"}, "text"),
        ({"exclude": "stt"}, "note request again piece cancel other credit"),
        ({"exclude": ("agent", "mic")}, ""),
        ({"exclude": "target=agent", "source": ("stt", "tool")}, ""),
        ({"exclude": "source=stt.2"}, "audio note request again piece cancel other credit"),
        ({"exclude": ("category=job", "category=system")}, "audio text note"),
        ({"exclude": ("key=call-*", "job=j-1", "type=Job*")}, "text note"),
        ({"exclude": "source=*"}, ""),
        ({"exclude": "*"}, ""),
        ({"exclude": "other=x"}, " ".join(ALL)),
    ],
)
def test_filters_choose(terms: dict[str, Any], expected: str) -> None:
    """Frames by their own type; what is left out wins; a job has all its attempts and its cancel."""
    assert expected == passing(**terms)


def test_a_star_excludes_no_broadcast_by_its_target() -> None:
    """`target=*` means broadcasts, as `--target '*'` does; a bare name never means one."""
    assert "note" not in passing(exclude="target=[*]")
    assert "note" in passing(exclude="[*]")


class Tape:
    """A tap that plays messages."""

    missed = 0

    def __init__(self, items: list[TapMessage]) -> None:
        self._items = items

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[TapMessage]:
        for item in self._items:
            yield item


class Leases:
    """A registry without workers."""

    async def leases(self) -> list[object]:
        """No worker is there."""
        return []


class TapeBus:
    """As much of a bus as a tail needs."""

    queues = None
    leases = Leases()

    def __init__(self, items: list[TapMessage]) -> None:
        self._items = items

    def tap(self) -> Tape:
        """Play them."""
        return Tape(self._items)


def shown(items: list[TapMessage], **terms: Any) -> list[TailMessage]:
    """What a tail gives of these."""

    async def main() -> list[TailMessage]:
        tail = MessageTail(TapeBus(items), filter_of(TailTerms(**terms)))  # type: ignore[arg-type]
        return [message async for message in tail]

    return asyncio.run(main())


def test_a_sample_counts_what_is_chosen() -> None:
    """The first of so many, then the next first; others do not count."""
    items = [seen("Tick", n=number) for number in range(10)]
    mixed = [one for item in items for one in (item, NOTE)]

    assert [0, 4, 8] == [one.data["n"] for one in shown(mixed, type="Tick", sample=4)]
    assert 10 == len(shown(items, sample=1))


def test_headers_only_have_no_fields() -> None:
    """But the condition still sees them, and the size is that of the whole message."""
    (message,) = shown([NOTE, TEXT], match="data.n == `3`", headers_only=True)

    assert ("Remark", {}, b"") == (message.type, message.data, message.body)
    assert len(NOTE.body) == message.size_bytes


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("data.n == `3`", ["Remark"]),
        ("undelivered && source == 'mic'", ["BusFrameMessage"]),
        ("contains(data.text, 'Audio')", ["Remark"]),
        ("data.frame.text", ["BusFrameMessage"]),
        ("key == 'call-1' || data.payload.n > `0`", ["BusFrameMessage", "BusJobRequestMessage"]),
        ("data.n == '3'", []),
    ],
)
def test_conditions_see_header_and_data(expression: str, expected: list[str]) -> None:
    """Also whether a message reached a process; what has no such field does not match."""
    items = [AUDIO, TEXT, NOTE, REQUEST]

    assert expected == [one.type for one in shown(items, match=expression)]


def test_foreign_bodies_do_not_stop_a_tail() -> None:
    """A body that is no JSON has no data: neither an error nor a match."""
    odd = TapMessage(header=NOTE.header, body=b'{"type":"Remark","x":"\xff"}', lane="d")

    assert ["Remark"] == [one.type for one in shown([odd], match="type == 'Remark'")]
    assert [] == shown([odd], match="data.x", job="j-1")
